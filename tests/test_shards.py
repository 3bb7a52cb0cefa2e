"""Data sets on disk: a fixed split, and damage that is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from id3pm import shards
from id3pm.errors import InvalidInputError


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
