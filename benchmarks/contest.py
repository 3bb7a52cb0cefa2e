"""The sampling task that is timed, and the timing of one contender."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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


class Turn(NamedTuple):
    """Some images of both stages, made once.

    Attributes:
        seconds: From the first request to the last image.
        processor_s: Processor seconds by process, all of its threads together, without the client's.
        client_s: Processor seconds of the client; 0 where there is none.
        digest: Of the images, in order.
    """

    seconds: float
    processor_s: Mapping[str, float]
    client_s: float
    digest: str


def digest(images: Sequence[NDArray[np.uint8]]) -> str:
    """SHA-256 of uint8 images [S, S, 3]."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(image).tobytes() for image in images)).hexdigest()


def identities(config: UNetConfig, images: int) -> NDArray[np.float32]:
    """ID vectors [N, D] of L2 norm 1."""
    assert config.identity_dim is not None
    vectors = np.random.default_rng(0).standard_normal((images, config.identity_dim), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
