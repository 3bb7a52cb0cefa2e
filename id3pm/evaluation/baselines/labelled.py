"""A labelled data set: several pictures of each person, for Vec2Face, whose authors had labelled photographs.

Each training person of a data set is there with the picture that the set has, and with images that ID3PM generates from
the person's ID vector. All of them carry that vector, which is the label; the black box may see others in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.formats import datasets
from id3pm.pipeline import Pipeline

PICTURES = "pictures_per_person"
"""Key of the description: this many pictures of a person follow each other."""
SHARD = 200  # people
CHUNK = 32  # images that are generated together


def write_labelled(
    pipeline: Pipeline,
    source: Path,
    out: Path,
    seeds: int,
    options: Mapping[str, Any],
    on_images: Callable[[int], object] = lambda count: None,
    most: int | None = None,
) -> int:
    """Writes the data set; shards that are there are not made again.

    Args:
        pipeline: Generates.
        source: The data set with the people; those held out stay out.
        out: Folder of the new one.
        seeds: Images of each person beside the person's own picture.
        options: Sampling options.
        on_images: Called with the number of images whenever some are done.
        most: Takes the first people alone, at most so many; `None` takes all.

    Returns:
        How many people there are.

    Raises:
        InvalidInputError: The people have ID vectors of another FR model, or `out` holds another data set.
    """
    manifest = pipeline.base_manifest
    found = datasets.describe(source)
    if found.get("id_vector_model") != manifest.id_vector_model:
        raise InvalidInputError(
            f"{source} has ID vectors of {found.get('id_vector_model')}: this bundle takes those of "
            f"{manifest.id_vector_model}"
        )
    people = first_people(source, most)
    description = {
        "kind": "labelled",
        "of": found,
        "id_vector_model": manifest.id_vector_model,
        "bundle": manifest.bundle.name,
        "weights_sha256": manifest.bundle.weights_sha256,
        "options": dict(options),
        "people": len(people["index"]),
        PICTURES: seeds + 1,
    }
    datasets.begin(out, description)
    count = len(people["index"])
    for number, start in enumerate(range(0, count, SHARD)):
        rows = slice(start, start + SHARD)
        if not datasets.shard_path(out, number).exists():
            some = {name: values[rows] for name, values in people.items()}
            datasets.write_shard(out, number, _shard(pipeline, some, seeds, options, on_images))
        else:
            on_images(seeds * len(people["index"][rows]))
    return count


def first_people(source: Path, most: int | None) -> dict[str, NDArray[Any]]:
    """The training split of a data set, of the first `most` people alone where there are more; see `datasets.load`."""
    return {name: values[:most] for name, values in datasets.load(source, "train").items()}


def _shard(
    pipeline: Pipeline,
    people: Mapping[str, NDArray[Any]],
    seeds: int,
    options: Mapping[str, Any],
    on_images: Callable[[int], object],
) -> dict[str, NDArray[Any]]:
    vectors = np.repeat(people["vectors"], seeds, axis=0)
    numbers = list(range(seeds)) * len(people["vectors"])
    parts = []
    for start in range(0, len(vectors), CHUNK):
        parts.append(pipeline.generate_64(vectors[start : start + CHUNK], numbers[start : start + CHUNK], **options))
        on_images(len(parts[-1]))
    own, made = people["images"], np.concatenate(parts)
    pictures = seeds + 1
    images = np.concatenate([own[:, None], made.reshape(len(own), seeds, *made.shape[1:])], axis=1)
    labels = np.repeat(people["vectors"], pictures, axis=0)
    index = (people["index"][:, None] * pictures + np.arange(pictures)).reshape(-1)
    return {
        "images": images.reshape(-1, *own.shape[1:]),
        "vectors": labels,
        "flipped_vectors": labels,  # a mirrored picture is of the same person
        "detections": np.full((len(labels), people["detections"].shape[1]), np.nan, np.float32),
        "index": index,
        "held_out": np.zeros(len(labels), bool),
    }
