"""What is drawn from nothing: no pixel of the photograph, but the person's proportions and colours."""

from __future__ import annotations

import numpy as np
import pytest

from id3pm.evaluation.robustness import drawings as drawn
from id3pm.evaluation.robustness.portrait import Portrait
from id3pm.face.stage import FaceStage
from tests.evaluation.robustness.made_up_model import flat_portrait

DRAWINGS = (drawn.line_drawing, drawn.avatar, drawn.rendering)


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_drawing_is_a_face_to_the_detector_with_its_features_where_the_persons_are(
    draw: drawn.Draw, person: Portrait, stage: FaceStage
) -> None:
    (faces,) = stage.detect(draw(person)[None])
    assert len(faces) == 1
    found = faces[0, 4:14].reshape(5, 2)
    assert np.linalg.norm(found - person.landmarks, axis=1).max() < 0.3 * person.unit


@pytest.mark.parametrize("draw", DRAWINGS)
def test_nothing_of_the_photograph_is_in_it(draw: drawn.Draw) -> None:
    flat = flat_portrait(150)
    noisy = np.random.default_rng(0).integers(100, 201, flat.image.shape).astype(np.uint8)
    difference = draw(Portrait(noisy, flat.landmarks)).astype(int) - draw(flat)
    assert np.abs(difference).max() < 30  # only colours may differ, by what a median of noise does


def test_a_drawing_takes_its_colours_from_the_person() -> None:
    dark, light = (drawn.avatar(flat_portrait(value)) for value in (60, 200))
    cheek = tuple(np.rint(flat_portrait().pixels([(0.6, 0.75)])[0]).astype(int)[::-1])
    assert dark[cheek].tolist() == [60] * 3 and light[cheek].tolist() == [200] * 3
