"""The LFW protocol and its statistics, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.verification.similarities import best_threshold, distribution, folds_of, partners_of, verify

FOLDS = np.arange(20) // 2  # two pairs of each kind in each of ten folds


def test_separable_pairs_are_all_told_apart() -> None:
    found = verify(np.full(20, 0.8), np.full(20, 0.2), FOLDS)
    assert (found.accuracy, found.standard_error, found.pairs) == (1.0, 0.0, 40)
    assert found.threshold == pytest.approx(0.5)


def test_indistinguishable_pairs_are_told_apart_by_chance() -> None:
    assert verify(np.full(20, 0.5), np.full(20, 0.5), FOLDS).accuracy == 0.5


def test_one_bad_fold_costs_its_share() -> None:
    genuine = np.full(20, 0.8)
    genuine[:2] = 0.1  # fold 0: both genuine pairs below every impostor
    found = verify(genuine, np.full(20, 0.2), FOLDS)
    # Nine folds are perfect, one decides 2 of its 4 pairs rightly.
    assert found.accuracy == pytest.approx(0.95)
    assert found.standard_error == pytest.approx(0.05)  # nine values 1.0 and one 0.5: std 0.158, over sqrt(10)


def test_the_threshold_of_a_fold_comes_from_the_other_nine() -> None:
    # The rule is reversed in fold 0. A threshold that had seen it would do better there than none right.
    genuine, impostor = np.full(20, 0.8), np.full(20, 0.2)
    genuine[:2], impostor[:2] = 0.2, 0.8
    assert verify(genuine, impostor, FOLDS).accuracy == pytest.approx(0.9)


def test_a_pair_without_a_face_is_a_wrong_decision_in_either_list() -> None:
    genuine, impostor = np.full(20, 0.8), np.full(20, 0.2)
    genuine[0] = impostor[5] = np.nan
    assert verify(genuine, impostor, FOLDS).accuracy == pytest.approx(38 / 40)
    nothing = verify(np.full(20, np.nan), np.full(20, np.nan), FOLDS)
    assert (nothing.accuracy, nothing.threshold) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("similarities", "same", "threshold"),
    [
        ([0.1, 0.3, 0.7, 0.9], [0, 0, 1, 1], 0.5),
        ([0.9, 0.1, 0.7, 0.3], [1, 0, 1, 0], 0.5),
        ([0.1, 0.4, 0.5, 0.9], [0, 1, 0, 1], 0.25),  # 0.25 and 0.7 are equally good: the lower of two middle ones
        ([0.2, 0.8, np.nan], [0, 1, 1], 0.5),
    ],
    ids=["separable", "any order", "overlap", "no face"],
)
def test_best_threshold_makes_the_most_right_decisions(
    similarities: list[float], same: list[int], threshold: float
) -> None:
    values, kinds = np.array(similarities), np.array(same, dtype=bool)
    found = best_threshold(values, kinds)
    assert found == pytest.approx(threshold)
    seen = np.isfinite(values)
    right = [((values[seen] >= any_other) == kinds[seen]).sum() for any_other in np.linspace(-0.1, 1.1, 1201)]
    assert ((values[seen] >= found) == kinds[seen]).sum() == max(right)


def test_equal_similarities_are_not_split_by_a_threshold() -> None:
    values, same = np.array([0.5, 0.5, 0.5, 0.9]), np.array([False, True, True, True])
    assert best_threshold(values, same) <= 0.5  # three of four right; between the equal ones no value exists


@pytest.mark.parametrize("identities", [20, 24, 500, 503])
def test_every_person_meets_one_other_of_the_same_fold(identities: int) -> None:
    folds, partners = folds_of(identities), partners_of(identities)
    assert sorted(set(folds.tolist())) == list(range(10))
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 1
    assert (partners != np.arange(identities)).all()
    np.testing.assert_array_equal(folds[partners], folds)
    assert sorted(partners.tolist()) == list(range(identities))


def test_too_few_people_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="19 identities: the 10-fold protocol needs at least 20"):
        folds_of(19)


def test_distribution_leaves_out_what_has_no_face() -> None:
    found = distribution(np.array([[0.0, 0.5], [np.nan, 1.0]]))
    assert (found.count, found.mean) == (3, 0.5)
    assert found.std == pytest.approx(math.sqrt(1 / 6))
    assert found.quantiles[2] == 0.5
    assert sum(found.histogram) == 3
    assert distribution(np.array([-0.9, 1.0])).histogram[0] == 1  # what lies below the first bin is counted there
    assert math.isnan(distribution(np.array([np.nan])).mean)
