"""The first input of an image: noise; with the data's mean colour; or for some students the noised small image."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from id3pm.formats.array_api import Array, array_namespace


class Start(NamedTuple):
    """What a sampler begins with besides noise: a mean colour, or the small image as q(x_t | x_0) would noise it.

    Attributes:
        mean: sqrt(abar) times the data's mean colour, float32 [3, 1, 1], which is added to the noise; `None` where the
            small image is there.
        share: Of the enlarged small image, sqrt(abar).
        std: Of the noise beside it, sqrt(1 - abar).
    """

    mean: NDArray[np.float32] | None
    share: float = 0.0
    std: float = 1.0


def first_input(noise: Array, start: Start | None, low_res: Array | None) -> Array:
    """x_T of one image.

    Args:
        noise: Draw 0 of the seed contract, float32 [..., 3, S, S].
        start: `StepPlan.start`; `None` gives the noise itself.
        low_res: The small image in [-1, 1], float32 [..., 3, s, s]; read where `start` has no mean.

    Returns:
        float32 of the shape of `noise`.

    Raises:
        ValueError: The image starts from its small image, and there is none.
    """
    if start is None:
        return noise
    if start.mean is not None:
        return noise + array_namespace(noise).asarray(start.mean.copy(), device=device(noise))
    if low_res is None:
        raise ValueError("this image starts from its small image: pass low_res")
    x = enlarged(low_res, noise.shape[-1])
    x *= start.share
    x += start.std * noise
    return x


def enlarged(images: Array, size: int) -> Array:
    """Images enlarged bilinearly, as the U-Net enlarges its small image (PyTorch, align_corners=False).

    Elementwise, so that a row's bits do not depend on the batch.

    Args:
        images: float32 [..., s, s].
        size: Side of the result, at least s.

    Returns:
        float32 [..., size, size], new.
    """
    xp, where = array_namespace(images), device(images)
    lower, upper, weight = _places(images.shape[-1], size)
    low, high = (xp.asarray(places, device=where) for places in (lower, upper))
    for axis, shape in ((images.ndim - 2, (size, 1)), (images.ndim - 1, (size,))):
        share = xp.asarray(weight.reshape(shape), device=where)
        images = (1.0 - share) * xp.take(images, low, axis=axis) + share * xp.take(images, high, axis=axis)
    return images


@functools.lru_cache(maxsize=16)
def _places(small: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For every pixel of an enlarged side its two neighbours, and the second one's weight."""
    at = np.maximum((np.arange(size) + 0.5) * small / size - 0.5, 0.0)
    lower = at.astype(np.int64)
    return lower, np.minimum(lower + 1, small - 1), (at - lower).astype(np.float32)
