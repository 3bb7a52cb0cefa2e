"""A training set from pictures: crops, and their ID vectors by any FR model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from id3pm.config import to_json
from id3pm.errors import ImageError, InvalidInputError
from id3pm.face.framing import Crop, framed
from id3pm.formats import datasets as shards
from id3pm.formats.photo_decoding import decode_photo
from id3pm.training.embedding import Embedder, FaceFilter
from id3pm.training.labels import AttributeFiles, Split
from id3pm.training.sources import Source

SKIPPED_FILE = "skipped.tsv"
BATCH_PICTURES, BATCH_PIXELS = 16, 32_000_000
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureJob:
    """One data set from pictures.

    Attributes:
        source: The pictures (`id3pm.training.sources.open_source`).
        folder: Where the shards go.
        faces: Face engine folder (id3pm build-faces).
        image_size: Size of the images in pixels: 64 for the base model, 256 for super-resolution.
        shard_size: Pictures per shard.
        crop: See `id3pm.face.framing.framed`.
        face_filter: Which faces are kept.
        split: Which pictures are held out; `None` holds out every 20th.
        attributes: Where attribute vectors come from; `None` for a set without.
    """

    source: Source
    folder: Path
    faces: Path
    image_size: int = 64
    shard_size: int = 1000
    crop: Crop = "face"
    face_filter: FaceFilter = FaceFilter()
    split: Split | None = None
    attributes: AttributeFiles | None = None


@dataclasses.dataclass(frozen=True)
class PictureReport:
    """Numbers of pictures `kept`, and `skipped` (listed with reasons in skipped.tsv)."""

    kept: int
    skipped: int


def embed_pictures(job: PictureJob) -> PictureReport:
    """Makes the shards that are missing; pictures that cannot be used are reported and skipped.

    Shard k covers pictures k * shard_size and following, so an interrupted run goes on where it stopped.

    Raises:
        InvalidInputError: The output folder holds another data set.
        EngineError: The face models are missing.
    """
    embedder = Embedder(job.faces)
    count = len(job.source)
    shards.begin(job.folder, _description(job, embedder))
    kept = 0
    with tqdm(total=count, unit="picture") as bar:
        for number, start in enumerate(range(0, count, job.shard_size)):
            indices = range(start, min(start + job.shard_size, count))
            done = shards.shard_size(job.folder, number)
            if done is None:
                kept += _make_shard(job, embedder, number, indices, bar)
            else:
                kept += done
                bar.update(len(indices))
    return PictureReport(kept, count - kept)


def _make_shard(job: PictureJob, embedder: Embedder, number: int, indices: range, bar: Any) -> int:
    rows: dict[int, Row] = {}
    skipped: dict[int, str] = {}
    for photos in _decoded(job, indices, skipped, bar):
        for index, row in _embedded(job, embedder, photos, skipped):
            rows[index] = row
    ordered = [{**rows[index], "index": np.int64(index)} for index in sorted(rows)]
    columns = _empty_columns(job, embedder)
    if ordered:
        columns = {name: np.stack([row[name] for row in ordered]) for name in columns}
    _report_skipped(job, indices, skipped)
    shards.write_shard(job.folder, number, columns)
    return len(ordered)


def _report_skipped(job: PictureJob, indices: range, skipped: dict[int, str]) -> None:
    """Writes a line for each skipped picture of a shard, in place of those of an earlier run; before the shard itself.

    So every picture is either kept or listed, even after an interruption.
    """
    file = job.folder / SKIPPED_FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = [line for line in lines if int(line.split("\t", 1)[0]) not in indices]
    kept += [f"{index}\t{_one_line(job.source.name(index))}\t{_one_line(skipped[index])}" for index in sorted(skipped)]
    partial = file.with_name(f".{SKIPPED_FILE}.{os.getpid()}.tmp")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(partial, file)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _decoded(
    job: PictureJob, indices: range, skipped: dict[int, str], bar: Any
) -> Iterator[dict[int, NDArray[np.uint8]]]:
    """Pictures by number, in groups that fit into memory; those that cannot be decoded go to `skipped`."""
    group: dict[int, NDArray[np.uint8]] = {}
    for index in indices:
        bar.update()
        try:
            group[index] = decode_photo(job.source.read(index))
        except OSError as error:
            skipped[index] = f"cannot be read: {error.strerror or error}"
        except ImageError as error:
            skipped[index] = str(error)
        if len(group) >= BATCH_PICTURES or sum(photo.size // 3 for photo in group.values()) >= BATCH_PIXELS:
            yield group
            group = {}
    if group:
        yield group


def _embedded(
    job: PictureJob, embedder: Embedder, photos: dict[int, NDArray[np.uint8]], skipped: dict[int, str]
) -> Iterator[tuple[int, Row]]:
    """The arrays of pictures; pictures of one size go through the face models together."""
    for shape in sorted({photo.shape for photo in photos.values()}):
        same = [index for index, photo in photos.items() if photo.shape == shape]
        found = embedder.embed(np.stack([photos[index] for index in same]), job.face_filter)
        for row, vector, flipped, detection in zip(
            found.rows, found.vectors, found.flipped_vectors, found.detections, strict=True
        ):
            index = same[row]
            try:
                labels = _labels(job, index)
            except InvalidInputError as error:
                skipped[index] = str(error)
                continue
            image, detection = framed(photos[index], detection, job.image_size, job.crop)
            arrays = {"images": image, "vectors": vector, "flipped_vectors": flipped, "detections": detection}
            yield index, {**arrays, **labels}
        for row in set(range(len(same))) - set(found.rows.tolist()):
            skipped[same[row]] = "no face that passes the filter"


def _labels(job: PictureJob, index: int) -> Row:
    labels: Row = {}
    if job.split is not None:
        labels["held_out"] = np.bool_(job.split.held_out(job.source.name(index)))
    if job.attributes is not None:
        labels["attributes"] = job.attributes.vector(job.source, index)
    return labels


def _empty_columns(job: PictureJob, embedder: Embedder) -> dict[str, NDArray[Any]]:
    dim = embedder.manifest.identity_dim
    columns: dict[str, NDArray[Any]] = {
        "images": np.zeros((0, job.image_size, job.image_size, 3), np.uint8),
        "vectors": np.zeros((0, dim), np.float32),
        "flipped_vectors": np.zeros((0, dim), np.float32),
        "detections": np.zeros((0, 15), np.float32),
        "index": np.zeros(0, np.int64),
    }
    if job.split is not None:
        columns["held_out"] = np.zeros(0, np.bool_)
    if job.attributes is not None:
        columns["attributes"] = np.zeros((0, job.attributes.dim), np.float32)
    return columns


def _description(job: PictureJob, embedder: Embedder) -> dict[str, Any]:
    return {
        "kind": "pictures",
        "source": f"{len(job.source)} pictures",
        "id_vector_model": embedder.manifest.id_vector_model,
        "identity_dim": embedder.manifest.identity_dim,
        "face_models_sha256": embedder.manifest.source_sha256,
        "image_size": job.image_size,
        "shard_size": job.shard_size,
        "crop": job.crop,
        "filter": to_json(job.face_filter),
        "test_every": shards.TEST_EVERY if job.split is None else None,
        "attribute_set": None if job.attributes is None else job.attributes.attribute_set,
    }
