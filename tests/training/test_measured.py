"""Attributes measured on a data set: beside the shards, once, the same as measured alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from skimage import data

from id3pm.attributes import decode, fields_of
from id3pm.errors import InvalidInputError
from id3pm.face.landmarks import FaceMesh
from id3pm.face.measures import measure
from id3pm.formats import datasets as shards
from id3pm.training.data_commands import measure_dataset_command
from id3pm.training.measured import encoded

FIVE = np.array([[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]])
"""Landmarks of the portrait, as the detector finds them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two shards: a face, and noise in which there is none."""
    face = cv2.resize(data.astronaut()[40:200, 143:303], (64, 64), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    detections = np.zeros((2, 15), np.float32)
    detections[:, 4:14] = ((FIVE - (143, 40)) * 0.4).reshape(-1)
    shards.begin(tmp_path, {"kind": "test"})
    for number in range(2):
        shards.write_shard(
            tmp_path,
            number,
            {
                "images": np.stack([face, noise]),
                "vectors": np.zeros((2, 8), np.float32),
                "flipped_vectors": np.zeros((2, 8), np.float32),
                "detections": detections,
                "index": np.arange(2, dtype=np.int64) + 20 * number,
            },
        )
    return tmp_path


def measured(folder: Path) -> str:
    command = ["--data", str(folder), "--workers", "1"]
    return CliRunner().invoke(measure_dataset_command, command, catch_exceptions=False).output


def test_a_data_set_is_measured_once_and_where_it_has_grown(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.glob("shard_*.npz")}
    assert "4 faces measured" in measured(folder) and {path: path.read_bytes() for path in before} == before
    assert shards.describe(folder)["attribute_set"] == "landmarks"
    held_out = shards.load(folder, "test")  # of each shard the first, the face
    images, five = held_out["images"], held_out["detections"][:, 4:14].reshape(-1, 5, 2)
    alone = measure(FaceMesh(threads=1).find(images, five)[0])
    for row, attributes in enumerate(held_out["attributes"]):
        found = decode(attributes, "landmarks")
        assert found["yaw"] == pytest.approx(alone["yaw"][row], abs=0.01)
        assert found["smile"] == pytest.approx(np.clip(alone["smile"][row], 0, 1), abs=1e-3)
    assert (shards.load(folder, "train")["attributes"] == -1).all()  # no face, no attributes
    shards.measured_path(folder, shards.shard_path(folder, 1)).unlink()
    assert "2 faces measured" in measured(folder) and "0 faces measured" in measured(folder)


def test_a_data_set_with_other_attributes_is_left_alone(tmp_path: Path) -> None:
    shards.begin(tmp_path, {"kind": "test", "attribute_set": 1})
    with pytest.raises(InvalidInputError, match="has attributes of set 1"):
        measured(tmp_path)


def test_values_beyond_their_range_are_taken_to_its_end() -> None:
    values = {field.name: np.array([-1e3, 1e3, field.low, field.high]) for field in fields_of("landmarks")}
    np.testing.assert_allclose(encoded(values), np.repeat([[0.0], [4.0], [0.0], [4.0]], 7, axis=1), atol=1e-6)
