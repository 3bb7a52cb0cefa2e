"""A data set on disk: a folder of shards and a description.

    dataset.json             how the shards were made; a resumed run must agree with it
    shard_00000.npz          images          uint8   [n, S, S, 3]  RGB
                             vectors         float32 [n, D]        ID vectors, L2 norm 1
                             flipped_vectors float32 [n, D]        ID vectors of the mirrored images
                             detections      float32 [n, 15]       in pixels of `images`; see
                                                                   `id3pm.face.detect.DETECTION_SIZE`
                             index           int64   [n]           number of the image in its source, ascending
                             attributes      float32 [n, A]        where the set has them; see `id3pm.attributes`
                             held_out        bool    [n]           the test split, where it is not every 20th
                             complete        bool                  False where more faces of this shard are to come
    attributes.json          how attributes were measured afterwards, where they were (`id3pm measure-dataset`)
    attributes_00000.npz     attributes, index: as above, of shard 0

A shard is written whole or not at all, so an existing shard is complete and is not made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.formats.mapped_images import MappedImages, mapped

Split = Literal["train", "test"]
TEST_EVERY = 20
DESCRIPTION_FILE = "dataset.json"
MEASURED_FILE = "attributes.json"
_WHY_NONE: Mapping[Split, str] = {
    "train": "all its people are held out; add others with the command that made it",
    "test": f"every {TEST_EVERY}th image is held out, so it is too small; add others with the command that made it",
}
ARRAYS = ("images", "vectors", "flipped_vectors", "detections", "index")
OPTIONAL_ARRAYS = ("attributes", "held_out")


def shard_path(folder: Path, number: int) -> Path:
    """File of one shard."""
    return folder / f"shard_{number:05d}.npz"


def write_shard(folder: Path, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes one shard atomically: the arrays that the head of this file names."""
    _write(shard_path(folder, number), arrays)


def measured_path(folder: Path, shard: Path) -> Path:
    """File of the attributes that were measured on the images of a shard."""
    return folder / shard.name.replace("shard_", "attributes_")


def write_measured(folder: Path, shard: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes the measured attributes of one shard atomically: `attributes` and `index`."""
    _write(measured_path(folder, shard), arrays)


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def shard_size(folder: Path, number: int) -> int | None:
    """Images in a shard, or `None` where it has not been made; reads no image.

    Raises:
        InvalidInputError: The shard is damaged.
    """
    path = shard_path(folder, number)
    if not path.exists():
        return None
    with _opened(path) as shard:
        return len(shard["index"])


def shard_sizes(folder: Path) -> dict[int, tuple[int, bool]]:
    """Number of a shard -> its images, and whether it is complete; reads no image.

    Raises:
        InvalidInputError: A shard is damaged.
    """
    sizes = {}
    for path in sorted(folder.glob("shard_*.npz")):
        with _opened(path) as shard:
            complete = bool(shard["complete"]) if "complete" in shard else True
            sizes[int(path.stem.removeprefix("shard_"))] = (len(shard["index"]), complete)
    return sizes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays of a shard, each read on first use; errors name the file."""
    try:
        # numpy leaves a file open that it opened itself and could not read.
        with path.open("rb") as file, np.load(file) as shard:
            yield shard
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise InvalidInputError(f"{path.name} is damaged ({error}): delete it and make it again") from error


def begin(folder: Path, description: Mapping[str, Any], name: str = DESCRIPTION_FILE) -> None:
    """Creates the data set's folder, or checks that an existing one was made in the same way.

    Args:
        folder: The data set's.
        description: How it is made.
        name: File of the description; `MEASURED_FILE` for measured attributes.

    Raises:
        InvalidInputError: The folder has another description; mixing two data sets would go unnoticed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    if not file.exists():
        file.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        return
    existing = _read_description(file)
    for key in sorted({*existing, *description}):
        if existing.get(key) != description.get(key):
            raise InvalidInputError(
                f"the folder holds a data set with {key}={existing.get(key)!r}, asked for is {description.get(key)!r}: "
                "choose another folder"
            )


def describe(folder: Path) -> dict[str, Any]:
    """The description of a data set; where attributes were measured on it, with that description under `measured`.

    Raises:
        InvalidInputError: There is none, or it is damaged.
    """
    if not (folder / DESCRIPTION_FILE).exists():
        raise InvalidInputError(
            f"{folder} is no data set (no {DESCRIPTION_FILE}): make one with id3pm demo-dataset or id3pm embed-dataset"
        )
    description = _read_description(folder / DESCRIPTION_FILE)
    if (folder / MEASURED_FILE).exists():
        measured = _read_description(folder / MEASURED_FILE)
        description |= {"attribute_set": measured.get("attribute_set"), "measured": measured}
    return description


def _read_description(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise InvalidInputError(f"{file.name} is damaged ({error}): restore it, or make the data anew") from error
    if not isinstance(description, dict):
        raise InvalidInputError(f"{file.name} holds a {type(description).__name__}: expected a JSON object")
    return description


def is_test(index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each number [n] is held out: every 20th is, so a data set that grows keeps its split without a list."""
    test: NDArray[np.bool_] = index % TEST_EVERY == 0
    return test


def load(folder: Path, split: Split) -> dict[str, NDArray[Any]]:
    """All images of one half of a data set, in memory, in order of their numbers; see the head of this file.

    Raises:
        InvalidInputError: The folder is no data set, a shard is damaged, or nothing is in this half.
    """
    columns = _columns(folder, split, ARRAYS, lambda path, rows: None)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def load_mapped(folder: Path, split: Split) -> dict[str, Any]:
    """As `load`, with `images` as `MappedImages`: they stay in their files, and are read when they are needed.

    Raises:
        InvalidInputError: See `load`.
    """
    images: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []

    def map_images(path: Path, rows: NDArray[np.int64]) -> None:
        images.append((mapped(path, "images"), rows))

    columns = _columns(folder, split, tuple(name for name in ARRAYS if name != "images"), map_images)
    try:
        found = MappedImages(images)
    except ValueError as error:
        raise InvalidInputError(f"the shards of {folder} hold {error}: make the data anew") from error
    return {"images": found, **{name: np.concatenate(parts) for name, parts in columns.items()}}


def _columns(
    folder: Path, split: Split, names: Sequence[str], also: Callable[[Path, NDArray[np.int64]], None]
) -> dict[str, list[NDArray[Any]]]:
    """Arrays of one half, shard by shard; `also` gets each shard's file and the rows of it that belong to this half."""
    measured = "measured" in describe(folder)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for path in sorted(folder.glob("shard_*.npz")):
        with _opened(path) as shard:
            index = shard["index"]
            held_out = shard["held_out"] if "held_out" in shard else is_test(index)
            rows = np.flatnonzero(held_out == (split == "test"))
            for name in (*names, *(name for name in OPTIONAL_ARRAYS if name in shard)):
                parts.setdefault(name, []).append(shard[name][rows])
            also(path, rows)
        if measured:
            parts.setdefault("attributes", []).append(_measured(folder, path, index)[rows])
    if not sum(map(len, parts["index"])):
        raise InvalidInputError(f"{folder} has no {split} images: {_WHY_NONE[split]}")
    if any(len(arrays) != len(parts["index"]) for arrays in parts.values()):
        raise InvalidInputError(f"the shards of {folder} do not all hold {', '.join(parts)}: make the data anew")
    return parts


def mean_colour(folder: Path) -> tuple[float, ...]:
    """The mean colour of all images of a data set, held-out ones included: three numbers in [-1, 1], to 4 digits.

    Raises:
        InvalidInputError: The folder is no data set, a shard is damaged, or there are no images.
    """
    describe(folder)
    total, count = np.zeros(3), 0
    for path in sorted(folder.glob("shard_*.npz")):
        with _opened(path) as shard:
            images = shard["images"]
            total += images.mean((1, 2), dtype=np.float64).sum(0)
            count += len(images)
    if not count:
        raise InvalidInputError(f"{folder} has no images")
    return tuple(round(float(value), 4) for value in total / count / 127.5 - 1.0)


def _measured(folder: Path, shard: Path, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """The attributes measured on the images of a shard, which have these numbers."""
    path = measured_path(folder, shard)
    if not path.exists():
        raise InvalidInputError(f"{shard.name} has not been measured: id3pm measure-dataset --data {folder}")
    with _opened(path) as columns:
        attributes: NDArray[np.float32] = columns["attributes"]
        measured: NDArray[np.int64] = columns["index"]
    if not np.array_equal(measured, index):
        raise InvalidInputError(f"{path.name} is of another {shard.name}: delete it and measure again")
    return attributes
