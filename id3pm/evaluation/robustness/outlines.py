"""Smooth outlines of what is drawn on a face."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def smooth(points: ArrayLike, *, closed: bool = True, rounds: int = 4) -> NDArray[np.float64]:
    """Cuts the corners of a line [K, 2] so often (Chaikin, 1974); the ends of an open line stay."""
    line = np.asarray(points, np.float64)
    for _ in range(rounds):
        following = np.roll(line, -1, axis=0) if closed else line[1:]
        before = line if closed else line[:-1]
        cut = np.stack([0.75 * before + 0.25 * following, 0.25 * before + 0.75 * following], axis=1).reshape(-1, 2)
        line = cut if closed else np.concatenate([line[:1], cut, line[-1:]])
    return line
