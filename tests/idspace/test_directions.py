from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from id3pm.errors import InvalidInputError
from id3pm.idspace.directions import Card, Direction, Directions
from id3pm.idspace.fitting import fit_direction, r_squared, wilson
from id3pm.idspace.space import Space

DIM, PEOPLE = 12, 600
SPACE = Space(id_vector_model="sface", identity_dim=DIM)
RANDOM = np.random.default_rng(0)
VECTORS = np.asarray(RANDOM.standard_normal((PEOPLE, DIM)))
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
TRUTH = np.eye(DIM)[2] * 0.8 + np.eye(DIM)[5] * 0.6


def fit(labels: Any, vectors: Any = VECTORS, **more: Any) -> Direction:
    words = {"name": "age", "label": "age in years", "low": "young", "high": "old", "trained_on": "made up"}
    return fit_direction(vectors, labels, id_vector_model="sface", **{**words, **more})


def given_direction(vector: Any, name: str = "one", step: float = 0.1) -> Direction:
    unit = np.asarray(vector, np.float64) / np.linalg.norm(vector)
    card = Card(name=name, label=name, low="-", high="+", step=step, model="linear", score=None, trained_on="given")
    return Direction(SPACE, unit, card)


NOISY = VECTORS @ TRUTH + 0.05 * RANDOM.standard_normal(PEOPLE)


@pytest.mark.parametrize("labels", [NOISY > 0.1, 30 + 8 * NOISY], ids=["classes", "numbers"])
def test_the_direction_that_made_the_labels_is_found(labels: np.ndarray) -> None:
    direction = fit(labels)
    assert direction.vector @ TRUTH > 0.97
    assert np.linalg.norm(direction.vector) == pytest.approx(1.0)
    assert direction.card.step == pytest.approx((VECTORS @ direction.vector).std())
    score = direction.card.score
    assert score is not None and score.accuracy > 0.9 and score.count == PEOPLE
    assert score.accuracy_interval[0] < score.accuracy < score.accuracy_interval[1]
    assert direction.card.model == ("logistic" if labels.dtype == bool else "linear")
    assert (score.r2 is None) == (labels.dtype == bool)


def test_labels_by_chance_score_by_chance() -> None:
    coins = np.random.default_rng(1).integers(0, 2, PEOPLE)
    classes, numbers = fit(coins).card.score, fit(np.random.default_rng(2).standard_normal(PEOPLE)).card.score
    assert classes is not None and numbers is not None
    assert classes.accuracy_interval[0] < 0.55 and numbers.accuracy < 0.58
    # In-sample, both would look better than nothing: 12 weights for 600 people.
    assert numbers.r2 is not None and numbers.r2 < 0.01
    assert numbers.r2_interval is not None and numbers.r2_interval[0] < numbers.r2 < numbers.r2_interval[1]


def test_the_same_seed_gives_the_same_direction_and_score() -> None:
    labels = VECTORS @ TRUTH + 0.2 * np.random.default_rng(3).standard_normal(PEOPLE)
    first, again, other = fit(labels), fit(labels), fit(labels, seed=1)
    assert np.array_equal(first.vector, again.vector) and first.card == again.card
    assert np.array_equal(first.vector, other.vector) and first.card.score != other.card.score


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    # By hand from Wilson's formula; the last two are the textbook's limits for a share of 0 and of 1.
    [(8, 10, (0.4902, 0.9433)), (50, 100, (0.4038, 0.5962)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_wilson_intervals(right: int, count: int, interval: tuple[float, float]) -> None:
    assert wilson(right, count) == pytest.approx(interval, abs=1e-4)


def test_r_squared_is_one_for_the_truth_and_zero_for_its_mean() -> None:
    truth = np.array([1.0, 2.0, 6.0])
    assert r_squared(truth, truth) == 1.0
    assert r_squared(truth, np.full(3, 3.0)) == 0.0
    assert r_squared(truth, -truth) < 0.0


@settings(deadline=None, max_examples=40)
@given(strength=st.floats(-8, 8), row=st.integers(0, PEOPLE - 1))
def test_strength_moves_a_person_by_steps_along_the_direction(strength: float, row: int) -> None:
    direction = given_direction(TRUTH, step=0.1)
    moved = direction.apply(5.0 * VECTORS[row], strength)
    raw = VECTORS[row] + 0.1 * strength * TRUTH
    assert moved == pytest.approx(raw / np.linalg.norm(raw), abs=1e-6)
    assert direction.coordinate(raw / np.linalg.norm(raw)) == pytest.approx(direction.coordinate(moved), abs=1e-5)


def test_coordinates_rise_with_strength_for_all_people() -> None:
    direction = given_direction(TRUTH)
    swept = np.stack([direction.apply(VECTORS, strength) for strength in (-4, -2, 0, 2, 4)])
    assert np.all(np.diff(direction.coordinate(swept), axis=0) > 0)
    assert direction.apply(VECTORS[0], [-1, 0, 1]).shape == (3, DIM)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_an_orthogonal_direction_no_longer_moves_along_the_others(seed: int, count: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((count + 1, DIM))
    others = [given_direction(row, f"other {n}") for n, row in enumerate(rows[1:])]
    left = given_direction(rows[0]).orthogonal_to(*others)
    assert np.linalg.norm(left.vector) == pytest.approx(1.0)
    assert [abs(left.vector @ other.vector) for other in others] == pytest.approx([0.0] * count, abs=1e-9)
    assert left.card.orthogonal_to == tuple(other.card.name for other in others)
    span = np.stack([rows[0], *(other.vector for other in others)])
    assert np.linalg.matrix_rank(np.stack([*span, left.vector]), tol=1e-8) == count + 1  # nothing new came in


def test_orthogonal_to_dependent_directions_and_to_none() -> None:
    one, other = given_direction(np.eye(DIM)[0] + np.eye(DIM)[1]), given_direction(np.eye(DIM)[1], "other")
    twice = one.orthogonal_to(other, given_direction(-2 * np.eye(DIM)[1], "again"))
    assert twice.vector == pytest.approx(np.eye(DIM)[0])
    assert np.array_equal(one.orthogonal_to().vector, one.vector)
    with pytest.raises(InvalidInputError, match="direction other lies in the span of one, third"):
        other.orthogonal_to(one, given_direction(np.eye(DIM)[0], "third"))


def test_a_file_gives_the_same_directions(tmp_path: Path) -> None:
    fitted = fit(VECTORS @ TRUTH > 0)
    other = given_direction(np.eye(DIM)[1], "other").orthogonal_to(fitted)
    Directions(SPACE, (fitted, other)).save(tmp_path / "directions.npz")
    again = Directions.load(tmp_path / "directions.npz")
    assert list(again) == ["age", "other"] and again.space == SPACE
    assert again["age"].card == fitted.card and again["other"].card == other.card
    for name, direction in (("age", fitted), ("other", other)):
        assert again[name].apply(VECTORS, 3) == pytest.approx(direction.apply(VECTORS, 3), abs=1e-6)


def test_a_direction_of_the_same_name_is_replaced() -> None:
    directions = Directions(SPACE, (given_direction(TRUTH, "a"), given_direction(np.eye(DIM)[0], "b")))
    more = directions.adding(given_direction(np.eye(DIM)[3], "a"))
    assert list(more) == ["b", "a"] and more["a"].vector[3] == 1.0
    assert directions["a"].vector[3] == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(np.ones(PEOPLE)), "labels have 1 values"),
        (lambda: fit(np.arange(PEOPLE), model="logistic"), "600 values: need 2"),
        (lambda: fit(np.arange(3)), r"vectors \[600, 12\] and labels \[3\]"),
        (lambda: fit(np.arange(9), VECTORS[:9]), "too few for 5 folds"),
        (lambda: fit([1] * 4 + [0] * 20, VECTORS[:24]), "4 of one kind: too few"),
        (lambda: fit(np.full(PEOPLE, np.nan)), "labels is not finite"),
        (lambda: given_direction(TRUTH, ""), "need a name"),
        (lambda: given_direction(TRUTH, step=0.0), "positive step"),
        (lambda: given_direction(TRUTH).apply(np.ones(5), 1), "vector has 5 numbers: need 12"),
        (lambda: given_direction(TRUTH, step=1.0).apply(-TRUTH, 1), "resulting vector is zero"),
        (lambda: Directions(SPACE, (given_direction(TRUTH), given_direction(TRUTH))), "must be different"),
        (lambda: Directions(SPACE, ()).save("none.npz"), "no directions to save"),
        (
            lambda: Directions(Space(id_vector_model="arcface", identity_dim=DIM), (given_direction(TRUTH),)),
            "for sface vectors of 12 numbers, not for arcface vectors of 12",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="no direction 'beard'; there are one"):
        Directions(SPACE, (given_direction(TRUTH),))["beard"]
