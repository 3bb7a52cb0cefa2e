"""Means: one ID vector for several photographs of a person (supplement 5.2, last column of Fig. 11)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.errors import InvalidInputError
from id3pm.idspace.vectors import finished, unit


def mean_vector(vectors: ArrayLike) -> NDArray[np.float32]:
    """The direction of the mean of unit vectors; every photograph has the same weight.

    Args:
        vectors: ID vectors [N, D] of one person.

    Returns:
        A unit vector, float32 [D].

    Raises:
        InvalidInputError: Not [N, D] with N of at least 1, a vector is zero or not finite, or their mean is zero.
    """
    rows = unit(vectors, name="vectors")
    if rows.ndim != 2 or not len(rows):
        raise InvalidInputError(f"vectors have shape {list(rows.shape)}: need [N, D], the ID vectors of N photographs")
    return finished(rows.mean(axis=0), "the mean of the vectors is zero: they are not of one person")


def spread(vectors: ArrayLike) -> NDArray[np.float64]:
    """Angles [N] in degrees between ID vectors [N, D] and their mean.

    Raises:
        InvalidInputError: See `mean_vector`.
    """
    centre = mean_vector(vectors).astype(np.float64)
    rows = unit(vectors)
    angles = 2.0 * np.arctan2(np.linalg.norm(rows - centre, axis=1), np.linalg.norm(rows + centre, axis=1))
    return np.asarray(np.degrees(angles))
