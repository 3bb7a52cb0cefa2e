"""Classifier-free guidance, dynamic thresholding, and the null vectors of both conditions; every option is per row.

The functions take numpy, torch or CuPy arrays and return the kind they are given.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import device, is_numpy_array
from numpy.typing import NDArray

from id3pm.diffusion.rows import Array, Subset, Thresholds
from id3pm.formats.array_api import array_namespace, clamp


def guide(eps_cond: Array, eps_uncond: Array | None, scale: Array, rows: Subset) -> Array:
    """Classifier-free guidance eps_u + s (eps_c - eps_u), Ho and Salimans (2022), in the convention where s = 1 is off.

    Args:
        eps_cond: Conditional eps, float32 [N, C, H, W].
        eps_uncond: Unconditional eps of the guided rows alone, float32 [G, C, H, W]; `None` where G is 0.
        scale: s of the guided rows, float32 [G, 1, 1, 1].
        rows: Which rows are guided; all others keep `eps_cond` untouched.

    Returns:
        float32 [N, C, H, W].

    Raises:
        ValueError: `eps_uncond` has not exactly one row for each guided row.
    """
    given = 0 if eps_uncond is None else eps_uncond.shape[0]
    if given != len(rows):
        raise ValueError(f"{given} unconditional rows for {len(rows)} guided rows: give one for each, in their order")
    if eps_uncond is None or given == 0:
        return eps_cond
    guided = rows.take(eps_cond) - eps_uncond
    guided *= scale  # in place, here and below: fresh pages cost more than the arithmetic
    guided += eps_uncond
    return rows.put(eps_cond, guided)


def clip_x0(x0: Array, thresholds: Thresholds | None) -> Array:
    """Clips the predicted x_0 to [-1, 1], each row in its own way.

    A row without a threshold is clamped. Dynamic thresholding (Saharia et al. 2022, Imagen, section 2.3) at percentile
    p: s = max(quantile of |x_0| at p, 1), clamp to [-s, s], divide by s. The quantile interpolates linearly, as
    `numpy.quantile` and `torch.quantile` do.

    Args:
        x0: float32 [N, C, H, W].
        thresholds: Which rows are thresholded, and where their quantiles lie.

    Returns:
        float32 [N, C, H, W]. NaN stays NaN, in its own row.
    """
    xp = array_namespace(x0)
    if thresholds is None:
        return clamp(x0, -1.0, 1.0)
    subset = thresholds.subset
    magnitudes = xp.abs(xp.reshape(subset.take(x0), (len(subset), -1)))
    select = _numpy_quantiles if is_numpy_array(x0) else _quantiles
    quantiles = xp.maximum(select(magnitudes, thresholds), 1.0)
    rank = (1,) * (x0.ndim - 1)
    limit = xp.ones((x0.shape[0], *rank), dtype=x0.dtype, device=device(x0))
    limit = subset.put(limit, xp.reshape(quantiles, (-1, *rank)))
    clipped = clamp(x0, -limit, limit)
    clipped /= limit
    return clipped


def make_consistent(x0: Array, low_res: Array, share: Array) -> Array:
    """Corrects x_0 so that its area reduction equals the small image.

    The range-null-space decomposition of Wang et al. (2023), "Zero-Shot Image Restoration Using Denoising Diffusion
    Null-Space Model" (DDNM), eq. 13, for A = mean over f x f pixels, whose pseudo-inverse repeats pixels:
    x0 + share A^+ (y - A x0). Detail that the network adds to the small image stays. Contradictions to it, such as a
    drift of colours, are removed.

    Args:
        x0: float32 [N, C, f h, f w].
        low_res: y, float32 [N, C, h, w].
        share: float32 [N, 1, 1, 1]; 1 makes A x0 = y.

    Returns:
        float32 [N, C, f h, f w], not clipped.
    """
    xp = array_namespace(x0)
    n, channels, height, width = low_res.shape
    factor = x0.shape[2] // height
    blocks = xp.reshape(x0, (n, channels, height, factor, width, factor))
    missing = low_res - xp.mean(blocks, axis=(3, 5))
    missing *= share
    return xp.reshape(blocks + missing[:, :, :, None, :, None], x0.shape)


def _quantiles(values: Array, thresholds: Thresholds) -> Array:
    """The quantiles of the rows of [K, M], [K, 1]."""
    xp = array_namespace(values)
    count, elements = values.shape
    ascending = xp.reshape(xp.sort(values, axis=-1, stable=False), (-1,))
    starts = xp.arange(count, dtype=xp.int64, device=device(values)) * elements
    low = xp.reshape(xp.take(ascending, starts + thresholds.lower, axis=0), (-1, 1))
    high = xp.reshape(xp.take(ascending, starts + thresholds.upper, axis=0), (-1, 1))
    return low + (high - low) * thresholds.weight


def _numpy_quantiles(values: NDArray[np.float32], thresholds: Thresholds) -> NDArray[np.float32]:
    """As `_quantiles` where they are above 1, else any number up to 1; the same bits."""
    return np.stack([_numpy_quantile(row, place) for row, place in zip(values, thresholds.places, strict=True)])


def _numpy_quantile(values: NDArray[np.float32], place: tuple[int, int, float]) -> NDArray[np.float32]:
    """One of `_numpy_quantiles`, [1].

    Sorting dominated a step. Only the elements near 1 and above can matter, and in most steps they are few.
    """
    lower, upper, weight = place
    large = values[~(values <= np.float32(0.999))]  # NaN is among them, last in ascending order as in a sort
    below = len(values) - len(large)
    if upper < below:
        return np.ones(1, dtype=np.float32)
    if lower < below:
        large, below = values, 0
    ascending = np.partition(large, (lower - below, upper - below))
    # Slices, not elements: numpy's float32 scalars become float64 when they meet a Python float, arrays do not.
    low, high = (ascending[at - below : at - below + 1] for at in (lower, upper))
    quantile: NDArray[np.float32] = low + (high - low) * weight
    return quantile


def null_identity(count: int, identity_dim: int) -> NDArray[np.float32]:
    """The ID vectors of unconditional rows: 0-vectors, float32 [N, D] (the paper, section 3)."""
    return np.zeros((count, identity_dim), dtype=np.float32)


def null_attributes(count: int, attribute_dim: int) -> NDArray[np.float32]:
    """The attributes of unconditional rows: -1-vectors, float32 [N, A], since 0 is a valid attribute value."""
    return np.full((count, attribute_dim), -1.0, dtype=np.float32)
