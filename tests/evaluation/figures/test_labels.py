from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from id3pm.errors import EngineMissingError
from id3pm.evaluation.figures import labels
from id3pm.evaluation.figures.labels import Labels
from id3pm.face.appearance import LABELS

FACE = np.array([12, 8, 40, 50, 22, 28, 42, 28, 32, 38, 22, 48, 42, 48, 0.9], np.float32)
IMAGES = np.full((4, 64, 64, 3), 90, np.uint8)


class Mesh:
    """Finds points that say which picture it was given; is unsure of the last."""

    def __init__(self, threads: int | None = None) -> None:
        self.seen: list[int] = []

    def find(self, images: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert landmarks.shape == (len(images), 5, 2)
        points = np.zeros((len(images), 468, 3)) + images[:, 0, 0, 0].astype(float)[:, None, None]
        return points, np.where(np.arange(len(images)) == len(images) - 1, 0.1, 0.9)


@pytest.fixture
def _mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "FaceMesh", Mesh)
    monkeypatch.setattr(labels, "measure_landmarks", lambda points: {"smile": points[:, 0, 0], "yaw": -points[:, 0, 0]})


@pytest.mark.usefixtures("_mesh")
def test_landmark_labels_go_to_their_pictures_and_are_nan_without_a_sure_face() -> None:
    images = IMAGES + np.arange(4, dtype=np.uint8)[:, None, None, None]
    detections = np.tile(FACE, (4, 1))
    detections[1] = np.nan
    found = Labels(["smile", "cheek_brightness", "beard", "yaw"]).measure(images, detections)
    assert set(found) == {*LABELS, "smile", "yaw"}
    assert found["smile"] == pytest.approx([90, np.nan, 92, np.nan], nan_ok=True)
    assert found["yaw"] == pytest.approx([-90, np.nan, -92, np.nan], nan_ok=True)
    assert found["cheek_brightness"] == pytest.approx([90, np.nan, 92, 93], nan_ok=True)
    nowhere = Labels(["smile"]).measure(images, np.full((4, 15), np.nan))
    assert np.isnan(nowhere["smile"]).all()


def test_without_the_landmark_network_what_pixels_tell_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(threads: Any = None) -> Mesh:
        raise EngineMissingError("not installed")

    monkeypatch.setattr(labels, "FaceMesh", missing)
    assert Labels(["cheek_brightness"]).names == tuple(LABELS)
    found = Labels(["smile"])
    assert found.names == tuple(LABELS) and set(found.measure(IMAGES, np.tile(FACE, (4, 1)))) == set(LABELS)


@pytest.mark.usefixtures("_mesh")
def test_texts_say_what_is_measured() -> None:
    found = Labels(["smile", "yaw"])
    assert found.text("yaw") == "yaw, degrees" and found.text("smile").startswith("smile, share")
    assert found.text("cheek_brightness") == LABELS["cheek_brightness"].text
