"""Synthetic embeddings for the verification protocols: pairs of pictures, each with its mirror image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Case(NamedTuple):
    """RandomState's stream is frozen by numpy, so the numbers are the same everywhere."""

    pairs: int
    dim: int
    seed: int


CASES = {"many": Case(600, 16, 1), "unequal folds": Case(203, 5, 2), "few": Case(40, 3, 3)}


def embeddings(case: Case) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """[P, 2, 2, D], and which pairs are of one person, mixed; means far from zero, so that subtracting them counts."""
    random = np.random.RandomState(case.seed)
    same = random.rand(case.pairs) < 0.5
    offset = random.randn(case.dim)
    first = random.randn(case.pairs, case.dim)
    near = first + 1.1 * random.randn(case.pairs, case.dim)
    second = np.where(same[:, None], near, random.randn(case.pairs, case.dim))
    views = np.stack([first, second], 1)[:, :, None, :] + 0.35 * random.randn(case.pairs, 2, 2, case.dim) + offset
    return views.astype(np.float32), same
