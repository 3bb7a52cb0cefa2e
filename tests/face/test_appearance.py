from __future__ import annotations

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.face.appearance import LABELS, measure

SIZE = 64


def face(
    *, skin: int = 150, hair: int = 60, forehead: int = 150, mouth: float = 20.0, down: float = 20.0, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """A drawn face, uint8 [S, S, 3], eyes 20 px apart at (32, 28), and its detection [15]."""
    size = round(SIZE * scale)
    image = np.full((size, size, 3), 0, np.uint8)
    y = (np.arange(size) + 0.5) / scale
    image[:] = np.where(y < 14, hair, np.where(y < 24, forehead, skin))[:, np.newaxis, np.newaxis]
    points = [(22, 28), (42, 28), (32, 38), (32 - mouth / 2, 28 + down), (32 + mouth / 2, 28 + down)]
    found = np.array([12, 8, 40, 50, *np.ravel(points), 0.9], np.float32)
    found[:14] *= scale
    return image, found


def one(name: str, image: np.ndarray, detection: np.ndarray) -> float:
    return float(measure(name, image[np.newaxis], detection[np.newaxis])[0])


@pytest.mark.parametrize(
    ("name", "changes", "value"),
    [
        ("cheek_brightness", {"skin": 200}, 200.0),
        ("hair_brightness", {"hair": 20, "skin": 120}, -100.0),
        ("fringe", {"forehead": 40, "skin": 150}, 110.0),
        ("fringe", {"forehead": 150, "skin": 150}, 0.0),
        ("mouth", {"mouth": 25.0}, 1.25),
        ("length", {"down": 24.0}, 1.2),
    ],
)
def test_labels_are_what_was_drawn(name: str, changes: dict[str, float], value: float) -> None:
    for scale in (1.0, 4.0):  # the picture's size does not matter
        assert one(name, *face(**changes, scale=scale)) == pytest.approx(value, abs=0.5)  # type: ignore[arg-type]


def test_geometry_does_not_depend_on_the_rotation_of_the_picture() -> None:
    image, detection = face(mouth=26.0, down=18.0)
    turned = detection.copy()
    points = detection[4:14].reshape(5, 2)
    turned[4:14] = np.stack([SIZE - 1 - points[:, 1], points[:, 0]], axis=1).ravel()
    upright = np.rot90(image, k=-1).copy()
    for name in LABELS:
        assert one(name, upright, turned) == pytest.approx(one(name, image, detection), abs=1.0)


def test_pictures_without_a_face_have_no_label_and_change_nothing_for_the_others() -> None:
    image, detection = face()
    detections = np.stack([np.full(15, np.nan, np.float32), detection, np.zeros(15, np.float32)])
    for name in LABELS:
        found = measure(name, np.stack([image] * 3), detections)
        assert np.isnan(found[[0, 2]]).all() and found[1] == one(name, image, detection)
        assert np.isnan(measure(name, image[np.newaxis], detections[:1])).all()


def test_a_face_at_the_edge_is_measured_inside_the_picture() -> None:
    image, detection = face()
    detection[4:14] -= 21
    assert np.isfinite([one(name, image, detection) for name in LABELS]).all()


def test_what_does_not_fit_is_refused() -> None:
    image, detection = face()
    with pytest.raises(InvalidInputError, match="label 'beard': choose one of cheek_brightness"):
        one("beard", image, detection)
    with pytest.raises(InvalidInputError, match="need uint8"):
        one("cheek_brightness", image.astype(np.float32), detection)
    with pytest.raises(InvalidInputError, match="detections"):
        measure("cheek_brightness", image[np.newaxis], detection)
