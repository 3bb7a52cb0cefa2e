"""Sweeps as a command line names them."""

from __future__ import annotations

import pytest

from id3pm.attributes import ATTRIBUTE_SETS, decode, encode
from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.sweeps import DEFAULT_SWEEPS, parse_sweep


def test_a_range_goes_from_end_to_end_in_equal_steps() -> None:
    sweep = parse_sweep("yaw=-30:30", "landmarks", 5, {"smile": 0.5})
    assert sweep.requested == (-30.0, -15.0, 0.0, 15.0, 30.0) and sweep.labels == ("-30", "-15", "0", "15", "30")
    assert sweep.values[1] == {"smile": 0.5, "yaw": -15.0}
    assert (sweep.unit, sweep.judge) == ("degrees", "yaw")


def test_one_emotion_becomes_another() -> None:
    sweep = parse_sweep("emotion=sad<->happy", 1, 3)
    mixed = [decode(encode(values, 1), 1) for values in sweep.values]
    assert [(step["sadness"], step["happiness"], step["neutral"]) for step in mixed] == [
        (1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 1.0, 0.0)
    ]  # fmt: skip
    assert sweep.judge == "smile" and sweep.name == "sadness <-> happiness"
    assert parse_sweep("emotion=fear<->anger", 1, 3).judge == ""


def test_all_emotions_are_a_sweep() -> None:
    sweep = parse_sweep("emotion=all", 1, 3)
    assert len(sweep.values) == len(sweep.labels) == 8 and sweep.requested == ()


@pytest.mark.parametrize(
    ("text", "attribute_set", "message"),
    [
        ("yaw", "landmarks", "give NAME=LOW:HIGH"),
        ("yaw=1", "landmarks", "give two numbers, such as yaw=-20:20"),
        ("yaw=-90:0", "landmarks", "yaw=-90.0: must be a number from -35 to 35"),
        ("nose=0:1", "landmarks", "has no nose"),
        ("emotion=sad<->hapy", 1, "emotion='hapy'"),
        ("emotion=all", "landmarks", "has no emotion"),
        ("yaw=-5:5", 3, "needs age, hair, gender, which a sweep of yaw does not give: .*--fixed age=30,gender=female"),
        ("age=10:80", 3, "needs hair, gender, which a sweep of age"),
    ],
)
def test_a_sweep_that_the_set_does_not_have_is_refused(text: str, attribute_set: int | str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_sweep(text, attribute_set, 3)


@pytest.mark.parametrize("attribute_set", ATTRIBUTE_SETS)
def test_the_sweeps_of_a_set_are_possible(attribute_set: int | str) -> None:
    fixed = {"age": 30, "gender": "female", "brown_hair": 1} if attribute_set == 3 else None
    for text in DEFAULT_SWEEPS[attribute_set]:
        parse_sweep(text, attribute_set, 2, fixed)
