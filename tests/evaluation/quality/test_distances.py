"""Distances between feature sets, against torch-fidelity's values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.quality.distances import frechet_distance, precision_recall, quality
from tests.golden.quality_cases import CASES, features

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/quality.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_distances_are_torch_fidelitys(case: str) -> None:
    found, golden = quality(*features(CASES[case])), GOLDEN[case]
    assert found.frechet == pytest.approx(golden["frechet_inception_distance"], rel=1e-5)
    assert found.kernel == pytest.approx(golden["kernel_inception_distance_mean"], rel=1e-9)
    assert found.kernel_std == pytest.approx(golden["kernel_inception_distance_std"], rel=1e-9)
    assert (found.precision, found.recall) == pytest.approx((golden["precision"], golden["recall"]), abs=1e-6)


def test_equal_sets_have_no_distance_and_full_overlap() -> None:
    first, _ = features(CASES["many"])
    found = quality(first, first)
    assert found.frechet == pytest.approx(0.0, abs=1e-8)
    assert (found.precision, found.recall) == (1.0, 1.0)


def test_two_gaussians_have_the_distance_of_the_formula() -> None:
    """Variances 1 and 4 in one direction, means 3 apart: 9 + 1 + 4 - 2 * 2."""
    random = np.random.RandomState(0)
    values = random.randn(2000)
    values = (values - values.mean()) / values.std(ddof=1)
    first = np.stack([values, np.zeros(2000)], axis=1)
    assert frechet_distance(first, 2.0 * first + 3.0 * np.array([1.0, 0.0])) == pytest.approx(10.0)


def test_a_far_image_costs_precision_and_no_recall() -> None:
    first, _ = features(CASES["many"])
    images = first.copy()
    images[:40] += 1e3
    precision, recall = precision_recall(images, first)
    assert precision == pytest.approx(0.9) and recall > 0.95


def test_sets_of_different_sizes_are_refused() -> None:
    first, second = features(CASES["many"])
    with pytest.raises(InvalidInputError, match=r"\(399, 12\) and \(400, 12\): need two sets of one size"):
        quality(first[1:], second)
