"""Synthetic features for the distances between two sets: fewer than dimensions, and more."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Case(NamedTuple):
    """RandomState's stream is frozen by numpy, so the numbers are the same everywhere."""

    count: int
    dim: int
    seed: int


CASES = {"many": Case(400, 12, 1), "fewer than dimensions": Case(60, 96, 2)}


def features(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two overlapping sets, non-negative as pooled activations are, [N, D] each."""
    random = np.random.RandomState(case.seed)
    first = np.abs(random.randn(case.count, case.dim) * random.rand(case.dim) + 0.5)
    second = np.abs(0.9 * random.randn(case.count, case.dim) * random.rand(case.dim) + 0.6)
    return first, second
