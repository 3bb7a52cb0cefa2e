"""The seed contract: Gaussian noise as a pure function of (seed, stage, draw).

The n-th number of `noise(seed, stage, draw, shape)`, in C order, is the n-th output of

    numpy.random.Generator(numpy.random.Philox(key=seed + (stage << 64), counter=draw << 192))
        .standard_normal(dtype=numpy.float32)

- Philox4x64-10 (Salmon et al. 2011), a counter-based generator. Key words: (seed, stage). Initial counter words, least
  significant first: (0, 0, 0, draw). Each draw therefore owns 2^192 blocks of four 64-bit words; no two different
  (seed, stage, draw) ever share one.
- numpy's float32 ziggurat turns the words into standard normal numbers.
- Always computed on the CPU, and moved to the accelerator afterwards.
- `shape` only cuts and reshapes one endless sequence: a larger shape begins with the same numbers.

Draw 0 of a stage is x_T. Draw k >= 1 is the noise that the k-th step adds (k = 1 is the noisiest step); a step that
adds none leaves its draw unused. Nothing else (batch, neighbours, sampler, guidance) enters. The values are pinned by
tests/golden, so a numpy release that changed its ziggurat would be noticed before images changed.
"""

from __future__ import annotations

import operator
import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.config import MAX_SEED
from id3pm.errors import InvalidInputError

STAGE_BASE = 0
STAGE_SR = 1
MAX_DRAW = 2**64 - 1
DRAWN_BITS = 32
"""Limit of random seeds: short enough to be typed, and exact in JavaScript."""


def noise(
    seed: int, stage: int, draw: int, shape: tuple[int, ...], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Standard normal numbers of the contract above.

    Args:
        seed: The user's seed, 0 .. 2^63 - 1 (any integer type, also numpy's).
        stage: `STAGE_BASE` or `STAGE_SR`, so that both stages may use one seed.
        draw: 0 for x_T, k for the noise that the k-th step adds.
        shape: Shape of the result, for one image `(3, H, W)`.
        out: Where to write it, C-contiguous float32 of that shape; a new array where `None`.

    Returns:
        float32 of that shape, C-contiguous.

    Raises:
        InvalidInputError: The seed is not an integer in range.
        ValueError: Stage or draw is out of range (a mistake in the calling code).
    """
    if stage not in (STAGE_BASE, STAGE_SR):
        raise ValueError(f"stage={stage!r}: must be STAGE_BASE ({STAGE_BASE}) or STAGE_SR ({STAGE_SR})")
    if not 0 <= draw <= MAX_DRAW:
        raise ValueError(f"draw={draw!r}: must be between 0 and 2^64 - 1")
    philox = np.random.Philox(key=check_seed(seed) + (stage << 64), counter=draw << 192)
    return np.random.Generator(philox).standard_normal(shape, dtype=np.float32, out=out)


def drawn_seed() -> int:
    """A random seed, 0 .. 2^32 - 1, for an image without a seed; its receipt names it."""
    return secrets.randbits(DRAWN_BITS)


def check_seed(seed: Any) -> int:
    """The seed as a Python integer.

    Raises:
        InvalidInputError: It is not an integer in 0 .. 2^63 - 1.
    """
    try:
        value = -1 if isinstance(seed, (bool, np.bool_)) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value <= MAX_SEED:
        raise InvalidInputError(f"seed={seed!r}: must be an integer between 0 and 2^63 - 1")
    return value
