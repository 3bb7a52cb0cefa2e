"""What the sheet of attributes says of its images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from id3pm.evaluation.figures import attributes
from id3pm.evaluation.figures.attributes import Swept, _effect, _numbers, _sheet
from id3pm.evaluation.figures.generator import GeneratedFaces, Person
from id3pm.evaluation.figures.sweeps import Sweep, parse_sweep

PEOPLE = [Person(name, np.full((64, 64, 3), 90, np.uint8), np.eye(4, dtype=np.float32)[0]) for name in "ab"]


@pytest.fixture
def swept() -> Swept:
    """Three steps of yaw, two people: measured is half of what was asked, and one face is not found."""
    sweep = parse_sweep("yaw=-20:20", "landmarks", 3)
    similarity = [[0.5, 0.6], [0.7, 0.8], [0.5, np.nan]]
    faces = [
        GeneratedFaces(
            np.full((2, 64, 64, 3), 50 + 50 * step, np.uint8),
            np.array(values, np.float32),
            np.zeros((2, 4)),
            np.zeros((2, 15)),
        )
        for step, values in enumerate(similarity)
    ]
    measures = {"yaw": np.array([-11.0, -9, 1, -1, 10, np.nan]), "dlib yaw": np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])}
    return Swept(sweep, faces, measures)


def free() -> Swept:
    """What both people look like without attributes."""
    sweep = Sweep("", "", ({},), ("without attributes",), (), "")
    images = np.full((2, 64, 64, 3), 30, np.uint8)
    faces = GeneratedFaces(images, np.array([0.4, 0.5], np.float32), np.zeros((2, 4)), np.zeros((2, 15)))
    return Swept(sweep, [faces], {"yaw": np.array([3.0, 4.0])})


def test_the_effect_is_measured_over_all_images_with_a_face(swept: Swept) -> None:
    numbers = _numbers(swept, {"yaw": np.array([2.0, 4.0, np.nan])})
    assert numbers["measured"] == [-10.0, 0.0, 10.0]
    assert numbers["slope"] == pytest.approx(0.5, abs=0.02) and numbers["correlation"] > 0.98
    assert numbers["correlation_dlib"] < -0.9  # a second judge that disagrees is heard
    assert numbers["similarity"] == pytest.approx([0.55, 0.75, 0.5]) and numbers["no_face"] == [0, 0, 1]
    assert (numbers["without"], numbers["std_without"]) == (3.0, 1.0)


def test_the_table_row_names_ends_and_what_was_kept(swept: Swept) -> None:
    effect = _effect(swept, 0.72, {"yaw": np.array([2.0, 4.0])})
    assert effect.change == "-20 -> 20 degrees"
    assert effect.kept == "0.55 -> 0.50, least 0.50; 0.72 without"
    assert effect.moved.startswith("yaw measured -10 -> 10, 3 without; r = 0.99, by dlib -0.9")


def test_what_cannot_be_measured_says_so() -> None:
    sweep = parse_sweep("emotion=all", 1, 2)
    faces = [
        GeneratedFaces(
            np.zeros((1, 64, 64, 3), np.uint8), np.array([0.5], np.float32), np.zeros((1, 4)), np.zeros((1, 15))
        )
    ] * 8
    assert _effect(Swept(sweep, faces, {}), 0.5, {}).moved == "not measured"


@pytest.mark.parametrize(("per_person", "rows"), [(True, 2), (False, 1)])
def test_a_sheet_has_a_row_for_each_person_or_for_each_sweep(swept: Swept, per_person: bool, rows: int) -> None:
    sheet = np.asarray(_sheet([swept], PEOPLE, free(), "seed 0", per_person))
    # The target, the image without attributes and each step have a grey of their own; a row shows it once.
    for grey in (90, 30, 50, 100, 150):
        seen = (sheet == grey).all(axis=-1).sum()
        assert seen == pytest.approx(rows * 128 * 128, rel=0.06)  # smooth letters have greys as well


def test_captions_say_in_words_what_was_asked_what_was_measured_and_how_similar_it_is(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    headings: list[str] = []

    def grid(rows: Any, *, columns: Any = (), **more: Any) -> None:
        drawn[:] = [[tile.caption for tile in row] for row in rows]
        headings[:] = columns

    monkeypatch.setattr(attributes, "grid", grid)
    _sheet([swept], PEOPLE, free(), "seed 0", False)
    assert drawn == [
        [
            "target a",
            "without attributes\nmeasured 3\nsimilarity 0.40",
            "asked -20\nmeasured -11\nsimilarity 0.50",
            "asked 0\nmeasured 1\nsimilarity 0.70",
            "asked 20\nmeasured 10\nsimilarity 0.50",
        ]
    ]
    _sheet([swept], PEOPLE, free(), "seed 0", True)
    assert drawn[1][0] == "target b" and drawn[1][2] == "measured -9\nsimilarity 0.60" and drawn[1][4] == "no face"
    assert headings == ["", "without attributes", "asked -20", "asked 0", "asked 20"]
