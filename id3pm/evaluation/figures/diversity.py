"""Differences between seeds of one person, contrast and saturation of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.figures.common import mean
from id3pm.face.appearance import LUMA

Floats = NDArray[np.float64]
RESAMPLES = 4000


def vectors_apart(vectors: NDArray[np.float32]) -> Floats:
    """Mean cosine distance between the ID vectors of each person's images: 0 is the same face, 1 nothing in common.

    Args:
        vectors: [P, S, D]: people, seeds; NaN where no face was found.

    Returns:
        [P]; NaN for a person with fewer than two faces.
    """
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    return _mean_of_pairs(np.asarray(vectors / lengths, np.float64), lambda a, b: 1.0 - (a * b).sum(axis=-1))


def pixels_apart(images: NDArray[np.uint8]) -> Floats:
    """Mean absolute difference between each person's images, in grey levels (0 .. 255), over pixels and channels.

    Args:
        images: uint8 [P, S, H, W, 3]: people, seeds.

    Returns:
        [P].
    """
    return _mean_of_pairs(images.astype(np.float64), lambda a, b: np.abs(a - b).mean(axis=(1, 2, 3)))


def contrast(images: NDArray[np.uint8]) -> Floats:
    """Standard deviation of the luma within each of the images uint8 [N, H, W, 3], in grey levels: [N]."""
    return np.asarray((images @ LUMA).std(axis=(1, 2)))


def saturated(images: NDArray[np.uint8]) -> Floats:
    """Share of the values of each of the images uint8 [N, H, W, 3] that are at an end, 0 or 255: [N]."""
    return np.asarray(((images == 0) | (images == 255)).mean(axis=(1, 2, 3)))


def interval(values: Floats, seed: int = 0) -> tuple[float, float]:
    """95 % confidence interval of the mean over people: bootstrap, percentiles.

    Args:
        values: [P], one per person; NaN are left out.
        seed: Of the resampling.

    Returns:
        Its ends; NaN without values.
    """
    known = np.asarray(values, np.float64)[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    random = np.random.Generator(np.random.Philox(seed))
    means = known[random.integers(0, len(known), (RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _mean_of_pairs(things: Floats, distance: Callable[[Floats, Floats], Floats]) -> Floats:
    """Mean over all pairs of the second axis of [P, S, ...], pairs without a distance left out: [P]."""
    first, second = np.triu_indices(things.shape[1], k=1)
    return np.array([mean(distance(person[first], person[second])) for person in things])
