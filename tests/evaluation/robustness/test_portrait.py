from __future__ import annotations

import cv2
import numpy as np
import pytest

from id3pm.errors import NoFaceError
from id3pm.evaluation.robustness.portrait import AVERAGE_FACE, SIZE, Portrait, framed, portrait_of
from id3pm.face.stage import FaceStage
from tests.evaluation.robustness.made_up_model import PEOPLE, flat_portrait


def astronaut() -> np.ndarray:
    return cv2.imread(str(PEOPLE.parent / "astronaut.jpg"))[..., ::-1].copy()


def test_landmarks_of_an_average_face_have_its_coordinates_at_any_tilt() -> None:
    for tilt in (0, 40, -75):
        portrait = flat_portrait(tilt=tilt)
        np.testing.assert_allclose(portrait.face(portrait.landmarks), AVERAGE_FACE, atol=1e-9)
        assert portrait.unit == pytest.approx(60)
    np.testing.assert_allclose(portrait.pixels(portrait.grid[7, 200]), (200, 7), atol=1e-9)


def test_sampling_the_grid_changes_nothing(person: Portrait) -> None:
    np.testing.assert_array_equal(person.sample(person.grid), person.image)


def test_a_photograph_is_framed_alike_wherever_and_however_large_the_face_is(stage: FaceStage) -> None:
    photo = astronaut()
    there = portrait_of(photo, stage)
    moved = np.pad(photo, ((90, 0), (140, 30), (0, 0)), mode="edge")
    larger = cv2.resize(photo, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC)
    for other in (moved, larger):
        np.testing.assert_allclose(portrait_of(other, stage).landmarks, there.landmarks, atol=12)


def test_beyond_the_photograph_its_edge_is_repeated(stage: FaceStage) -> None:
    photo = astronaut()
    whole = portrait_of(photo, stage)
    x = whole.pixels([(-1.2, 0)])[0, 0]  # somewhere left of the face
    assert 0 < x < SIZE
    cut = photo[:, 110:]
    portrait = portrait_of(cut, stage)
    assert portrait.image.shape == (SIZE, SIZE, 3)
    assert not (portrait.image == 0).all(axis=(0, 2)).any()  # no black columns


def test_a_square_that_the_face_fills_is_taken_whole(person: Portrait) -> None:
    photo = cv2.imread(str(PEOPLE / "03.png"))[..., ::-1]
    np.testing.assert_array_equal(person.image, cv2.resize(photo, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))


def test_without_a_face_there_is_no_portrait_but_a_frame(stage: FaceStage) -> None:
    photo = np.zeros((80, 120, 3), np.uint8)
    photo[:, 20:100] = 200
    with pytest.raises(NoFaceError, match="no face was found"):
        portrait_of(photo, stage)
    assert (framed(photo, stage) == 200).all()
