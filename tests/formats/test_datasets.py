"""Data sets on disk: a fixed split, and damage that is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards


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
