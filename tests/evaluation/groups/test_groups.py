"""Groups of people: labels that are read and refused, means, intervals, the worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.groups.labels import read_labels, thirds
from id3pm.evaluation.groups.study import by_group, worst


def test_each_group_has_its_mean_and_people_without_a_label_count_in_all() -> None:
    similarities = np.array([[0.8, 0.6], [0.7, np.nan], [0.2, 0.4], [np.nan, np.nan], [0.5, 0.5]])
    whole, a, b = by_group("judge", similarities, ["a", "a", "b", "b", ""], threshold=0.5)
    assert (whole.people, a.people, b.people) == (5, 2, 2)
    assert a.similarity == pytest.approx(0.7) and b.similarity == pytest.approx(0.3)
    assert whole.similarity == pytest.approx((0.7 + 0.7 + 0.3 + 0.5) / 4)
    assert (a.accepted, b.accepted) == (0.75, 0.0)
    assert (a.no_face, b.no_face) == (0.25, 0.5)
    assert whole.low < whole.similarity < whole.high
    (faceless,) = by_group("judge", np.full((2, 1), np.nan), ["", ""], 0.5)
    assert np.isnan(faceless.similarity) and faceless.accepted == 0.0


def test_an_interval_of_many_people_holds_their_true_mean() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        found = by_group("judge", random.normal(0.5, 0.1, (60, 1)), ["a"] * 60, 0.0)[1]
        held += found.low <= 0.5 <= found.high
    assert held >= 34  # 95 % of 40 is 38


def test_the_worst_come_first() -> None:
    assert worst(np.array([[0.9], [0.1], [np.nan], [0.5]]), 3) == [2, 1, 3]


def test_values_are_cut_into_thirds() -> None:
    assert thirds(np.array([3.0, 1.0, np.nan, 2.0])) == ["high", "low", "", "middle"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,other\n1,a", "labels.csv has the columns index, other: age is missing"),
        ("age\na", "labels.csv has the columns age: index is missing"),
        ("index,age\nx,a", "line 2 of labels.csv has index 'x': give a number"),
        ("index,age\n1,a\n1,b", "line 3 of labels.csv gives index 1 a second time"),
        ("", "labels.csv has the columns : index is missing"),
        (b"index,age\n1,\xff", "labels.csv is no CSV file in UTF-8"),
    ],
)
def test_label_files_that_break_a_rule_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInputError, match=message):
        read_labels(file, "age")


def test_labels_are_read_by_image_number(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("age,index\nold,20\n,40\nyoung , 60\n".replace(" 60", "60"))
    assert read_labels(file, "age") == {20: "old", 40: "", 60: "young"}
