"""The protocols' arithmetic against the originals', and the rules for pictures without a face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from id3pm.evaluation.verification.pairs import fold_slices
from id3pm.evaluation.verification.protocol import PROTOCOLS, ProtocolName, accuracy
from tests.golden.verification_cases import CASES, embeddings

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/verification.json").read_text())


@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize("case", CASES)
def test_every_fold_has_the_accuracy_of_the_original(case: str, protocol: ProtocolName) -> None:
    found = accuracy(protocol, *embeddings(CASES[case]))
    assert list(found.folds) == GOLDEN[case][protocol]
    assert found.mean == np.mean(GOLDEN[case][protocol]) and found.std == np.std(GOLDEN[case][protocol])
    assert (found.pairs, found.undecided) == (CASES[case].pairs, 0)


@pytest.mark.parametrize("pairs", [10, 19, 203, 6000])
def test_folds_are_those_of_an_unshuffled_kfold(pairs: int) -> None:
    from sklearn.model_selection import KFold  # more than a second

    wanted = [test.tolist() for _, test in KFold(10).split(np.arange(pairs))]
    assert [list(range(*fold.indices(pairs))) for fold in fold_slices(pairs)] == wanted


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_picture_without_a_face_is_a_wrong_decision_and_changes_no_other(protocol: ProtocolName) -> None:
    views, same = embeddings(CASES["many"])
    views = np.where(same[:, None, None, None], views[:, :1], views)  # pairs of one person are equal
    views[~same, 1] *= -1  # others far apart: every decision is right
    assert accuracy(protocol, views, same).mean == 1.0
    views[[0, 100, 101], 1] = np.nan
    found = accuracy(protocol, views, same)
    assert (found.mean, found.undecided) == (pytest.approx(597 / 600), 3)
    nothing = accuracy(protocol, np.full_like(views, np.nan), same)
    assert (nothing.mean, nothing.undecided) == (0.0, 600)


def test_equal_pictures_are_one_person_by_the_angle() -> None:
    """Where rounding makes a cosine larger than 1, the original's arccos is NaN and its decision wrong."""
    views, same = embeddings(CASES["many"])
    views[:, 1] = views[:, 0]
    assert accuracy("paper", views, np.arange(len(same)) % 7 > 0).folds[0] > 0.8
