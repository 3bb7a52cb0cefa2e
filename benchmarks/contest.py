"""The sampling task that is timed, and the timing of one contender."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from id3pm.config import UNetConfig

GUIDANCE_SCALE = 2.0  # the paper's, as the percentile of dynamic thresholding
PERCENTILE = 0.99


class Timing(NamedTuple):
    """Seconds of a whole loop, and of the network's evaluations in it."""

    seconds: float
    unet_seconds: float


def identities(config: UNetConfig, images: int) -> NDArray[np.float32]:
    """ID vectors [N, D] of L2 norm 1."""
    assert config.identity_dim is not None
    vectors = np.random.default_rng(0).standard_normal((images, config.identity_dim), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
