from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from id3pm.evaluation.robustness import light, warp
from id3pm.evaluation.robustness.leakage import LEAST, PROPERTIES, properties, trace
from id3pm.evaluation.robustness.portrait import Portrait
from id3pm.evaluation.robustness.study import Block, Subject
from id3pm.evaluation.robustness.summary import traces
from id3pm.evaluation.robustness.variants import ORIGINAL, Picture
from id3pm.face.stage import FaceStage

TURN, BRIGHTNESS, COLOUR = range(len(PROPERTIES))


def test_a_property_follows_the_change_it_is_about(stage: FaceStage, person: Portrait) -> None:
    pictures = [
        person.image,
        warp.turned(person, yaw=30),
        warp.turned(person, yaw=-30),
        light.exposed(person, -1),
        light.tinted(person, (0.5, 1.0, 0.5)),
        None,
        np.zeros_like(person.image),
    ]
    found = properties(pictures, stage)
    assert np.isnan(found[-2:]).all() and np.isfinite(found[:-2]).all()
    change = found[1:5] - found[0]
    assert change[0, TURN] > 0.08 and change[1, TURN] < -0.08
    assert change[2, BRIGHTNESS] == pytest.approx(-1 / 2.2, abs=0.05)  # a stop of light, in grey levels
    assert change[3, COLOUR] == pytest.approx(1 / 2.2, abs=0.05)
    assert abs(change[2, COLOUR]) < 0.05 and abs(change[2, TURN]) < 0.04


def test_the_share_is_the_slope_and_pictures_without_a_face_are_left_out() -> None:
    generator = np.random.default_rng(0)
    shown = generator.normal(0, 1, 400)
    made = 0.3 * shown + generator.normal(0, 0.1, 400)
    shown[:3], made[3:6] = np.nan, np.nan
    found = trace("m", "turn of the head", shown, made, np.arange(400))
    assert found is not None and found.pictures == found.people == 394 and found.family == "pose"
    assert found.error is not None and found.returns == pytest.approx(0.3, abs=3 * found.error)
    assert found.error == pytest.approx(0.1 / 394**0.5, rel=0.15)
    assert found.correlation == pytest.approx(0.3 / (0.3**2 + 0.1**2) ** 0.5, abs=0.03)


def test_pictures_of_one_person_are_no_independent_evidence() -> None:
    slopes = np.random.default_rng(1).normal(0.3, 0.2, 9)  # of nine people, each in many pictures that agree
    shown = np.tile([-1.0, 1.0], 9 * 4)
    people = np.repeat(np.arange(9), 8)
    found = trace("m", "turn of the head", shown, shown * slopes[people], people)
    assert found is not None and (found.pictures, found.people) == (72, 9)
    assert found.returns == pytest.approx(slopes.mean())
    assert found.error == pytest.approx(slopes.std() / 3, rel=0.1)  # and not a third of it, as of 72 people


def test_of_two_people_there_is_a_share_but_no_error() -> None:
    shown = np.tile([-1.0, 1.0, 0.5], 2)
    found = trace("m", "turn of the head", shown, shown / 2, np.repeat([0, 1], 3))
    assert found is not None and found.returns == pytest.approx(0.5) and found.error is None


@pytest.mark.parametrize("count", [LEAST - 1, 50])
def test_of_little_or_of_nothing_nothing_is_said(count: int) -> None:
    assert (
        trace("m", "turn of the head", np.arange(count) * (count < 9) * 1.0, np.arange(count) * 1.0, np.arange(count))
        is None
    )


def test_changes_count_from_each_persons_own_original_within_the_family() -> None:
    labels = (ORIGINAL, "pose", "pose", "pose", "light")
    pictures = tuple(Picture(family, "", None) for family in labels)
    shown = np.zeros((5, len(PROPERTIES)))
    shown[:, TURN] = (1.0, 1.1, 1.2, 0.8, 77.0)
    block = Block("m", Subject("x", pictures, True), (None,) * 5, (), shown, shown * 0.5 + 3)
    other = dataclasses.replace(block, shown=shown + 5, made=(shown + 5) * 0.5)
    (found,) = traces([block, other, other])
    assert (found.name, found.pictures, found.people) == ("turn of the head", 9, 3)
    assert found.returns == pytest.approx(0.5) and found.error == pytest.approx(0, abs=1e-9)
