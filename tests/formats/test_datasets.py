"""Data sets on disk: a fixed split, and damage that is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.formats.mapped_images import MappedImages


def test_every_twentieth_number_is_held_out(tmp_path: Path) -> None:
    shards.begin(tmp_path, {"kind": "test"})
    index = np.arange(100, dtype=np.int64)
    columns = {name: index[:, None] for name in ("images", "vectors", "flipped_vectors", "detections")}
    shards.write_shard(tmp_path, 0, {**columns, "index": index})
    assert shards.load(tmp_path, "test")["index"].tolist() == [0, 20, 40, 60, 80]
    assert len(shards.load(tmp_path, "train")["images"]) == 95


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_a_damaged_shard_is_named(tmp_path: Path, content: bytes) -> None:
    shards.begin(tmp_path, {"kind": "test"})
    shards.shard_path(tmp_path, 3).write_bytes(content)
    with pytest.raises(InvalidInputError, match="shard_00003.npz is damaged"):
        shards.load(tmp_path, "train")
    with pytest.raises(InvalidInputError, match="shard_00003.npz is damaged"):
        shards.shard_size(tmp_path, 3)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_a_damaged_description_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / shards.DESCRIPTION_FILE).write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"dataset\.json"):
        shards.begin(tmp_path, {"kind": "test"})


def test_measured_attributes_come_with_the_images_they_belong_to(tmp_path: Path) -> None:
    shards.begin(tmp_path, {"kind": "test"})
    index = np.arange(40, dtype=np.int64)
    columns = {name: index[:, None] for name in ("images", "vectors", "flipped_vectors", "detections")}
    shards.write_shard(tmp_path, 0, {**columns, "index": index})
    assert shards.describe(tmp_path).get("attribute_set") is None and "attributes" not in shards.load(tmp_path, "test")
    shards.begin(tmp_path, {"attribute_set": "landmarks"}, shards.MEASURED_FILE)
    with pytest.raises(InvalidInputError, match=r"^shard_00000\.npz has not been measured: id3pm measure-dataset"):
        shards.load(tmp_path, "train")
    measured = {"attributes": index[:, None] / 10, "index": index}
    shards.write_measured(tmp_path, shards.shard_path(tmp_path, 0), measured)
    assert shards.load(tmp_path, "test")["attributes"][:, 0].tolist() == [0.0, 2.0]
    assert shards.describe(tmp_path)["attribute_set"] == "landmarks"
    shards.begin(tmp_path, {"kind": "test"})  # a measured set may still grow


def test_measured_attributes_of_another_shard_are_refused(tmp_path: Path) -> None:
    shards.begin(tmp_path, {"kind": "test"})
    index = np.arange(40, dtype=np.int64)
    columns = {name: index[:, None] for name in ("images", "vectors", "flipped_vectors", "detections")}
    shards.write_shard(tmp_path, 0, {**columns, "index": index})
    shards.begin(tmp_path, {"attribute_set": "landmarks"}, shards.MEASURED_FILE)
    other = {"attributes": index[:, None] / 10, "index": index + 1}
    shards.write_measured(tmp_path, shards.shard_path(tmp_path, 0), other)
    with pytest.raises(InvalidInputError, match=r"^attributes_00000\.npz is of another shard_00000\.npz"):
        shards.load(tmp_path, "train")


def test_mapped_images_are_those_that_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shards.begin(tmp_path, {})
    for shard in range(3):
        arrays = {name: np.zeros((7, 4), np.float32) for name in shards.ARRAYS}
        arrays["index"] = np.arange(7 * shard, 7 * shard + 7)
        shards.write_shard(tmp_path, shard, {**arrays, "images": rng.integers(0, 256, (7, 4, 4, 3), np.uint8)})
    for split in ("train", "test"):
        read, mapped = shards.load(tmp_path, split)["images"], shards.load_mapped(tmp_path, split)["images"]
        assert mapped.shape == read.shape and len(mapped) == len(read) and mapped.dtype == read.dtype
        places = rng.integers(len(read), size=9)
        for which in (places, slice(0, 3), slice(None), len(read) - 1, places[:0]):
            np.testing.assert_array_equal(mapped[which], read[which])
    assert set(shards.load(tmp_path, "train")) == set(shards.load_mapped(tmp_path, "train"))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([np.zeros((2, 4, 4, 3), np.float32)], "dtype float32: must be uint8"),
        ([np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)], "several sizes"),
    ],
)
def test_images_that_do_not_fit_together_are_not_mapped(images: list[np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MappedImages([(array, np.arange(2)) for array in images])


def test_damage_is_found_before_images_are_mapped(tmp_path: Path) -> None:
    shards.begin(tmp_path, {})
    arrays = {name: np.zeros((21, 4), np.float32) for name in shards.ARRAYS}
    images = np.arange(21 * 12, dtype=np.uint8).reshape(21, 2, 2, 3)
    shards.write_shard(tmp_path, 3, {**arrays, "index": np.arange(21), "images": images})
    file = shards.shard_path(tmp_path, 3)
    content = file.read_bytes()
    at = content.index(images.tobytes())
    for damaged in (content[: at + 5] + b"?" + content[at + 6 :], content[: at + 9]):
        file.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match="shard_00003.npz is damaged"):
            shards.load_mapped(tmp_path, "train")
    np.savez_compressed(file, **{**arrays, "index": np.arange(21), "images": images})
    with pytest.raises(InvalidInputError, match="images is compressed"):
        shards.load_mapped(tmp_path, "train")
