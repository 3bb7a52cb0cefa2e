"""Variations beyond the training images: ID vectors of no person in the data set, and crops of another detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from id3pm.face.align import CROP_SIZE

BLEND, MEAN = 0.5, 1.2
"""Of `altered_vectors`: the largest step towards another person or away, and the most of the mean that is taken."""
JITTER = (0.04, 0.05, 2.0)
"""Standard deviations of `jitter`: log scale, turn in radians, shift in pixels of the aligned crop."""


def altered_vectors(
    vectors: NDArray[np.float32],
    people: NDArray[np.int64],
    mean: NDArray[np.float64],
    rate: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The ID vectors of some people, a share `rate` of them replaced by ones that no training image has.

    v + b (w - v) - l m, normalised: w of another person of the batch, b uniform in +- `BLEND` (towards the other, or
    away), m the mean of all vectors, l uniform in 0 .. `MEAN`. Vectors of photographs lack most of the mean that
    generated faces share, and lie further out.

    Args:
        vectors: Of the batch, [N, D].
        people: Which of them, [R].
        mean: Mean of the data set's vectors, [D].
        rate: 0 .. 1.
        rng: Random numbers.
    """
    chosen = rng.random(len(people)) < rate
    others = vectors[(people + rng.integers(1, max(len(vectors), 2), size=len(people))) % len(vectors)]
    blend = rng.uniform(-BLEND, BLEND, (len(people), 1))
    taken = rng.uniform(0.0, MEAN, (len(people), 1))
    own = vectors[people]
    moved = own + blend * (others - own) - taken * mean
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return np.where(chosen[:, None], moved, own).astype(np.float32)


def jitter(count: int, share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Crops a little larger or smaller, turned and shifted, as another detector would place them.

    Args:
        count: How many.
        share: Of the standard deviations `JITTER`.
        rng: Random numbers.

    Returns:
        float32 [N, 2, 3]: `matrix @ [x, y, 1]` moves a point of the aligned crop.
    """
    scale, turn, shift = (
        share * deviation * rng.standard_normal((count, size))
        for deviation, size in zip(JITTER, (1, 1, 2), strict=True)
    )
    cos, sin = (np.exp(scale) * part for part in (np.cos(turn), np.sin(turn)))
    linear = np.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)
    middle = np.full(2, (CROP_SIZE - 1) / 2)
    result: NDArray[np.float32] = np.concatenate(
        [linear, (middle + shift - linear @ middle)[:, :, None]], axis=2, dtype=np.float32
    )
    return result


def composed(alignments: NDArray[np.float32], moves: NDArray[np.float32]) -> NDArray[np.float32]:
    """`alignments` after `moves`, [N, 2, 3] each: first within the crop, then from the crop into the image."""
    result = alignments[:, :, :2] @ moves
    result[:, :, 2] += alignments[:, :, 2]
    return result
