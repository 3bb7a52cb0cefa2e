"""Classifier-free guidance, dynamic thresholding, and the null vectors of both conditions; every option is per row.

The functions take numpy, torch or CuPy arrays and return the kind they are given.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace
from numpy.typing import NDArray

Array = Any  # numpy.ndarray, torch.Tensor or cupy.ndarray


def column(values: NDArray[np.float32], like: Array) -> Array:
    """Per-row scalars float32 [N] as [N, 1, 1, ...], in the namespace, on the device and of the rank of `like`."""
    xp = array_namespace(like)
    shape = (-1,) + (1,) * (like.ndim - 1)
    return xp.reshape(xp.asarray(np.asarray(values, dtype=np.float32), device=device(like)), shape)


def take_rows(array: Array, rows: NDArray[np.intp]) -> Array:
    """`array[rows]` for ascending distinct rows; the array itself, not a copy, if these are all rows."""
    if len(rows) == array.shape[0]:
        return array
    xp = array_namespace(array)
    return xp.take(array, xp.asarray(rows, device=device(array)), axis=0)


def put_rows(array: Array, rows: NDArray[np.intp], values: Array) -> Array:
    """A copy of `array` with `values` in the given ascending distinct rows; `values` itself if these are all rows."""
    if len(rows) == array.shape[0]:
        return values
    xp = array_namespace(array)
    copy = xp.asarray(array, copy=True)
    copy[xp.asarray(rows, device=device(array))] = values
    return copy


def add_rows(array: Array, rows: NDArray[np.intp], values: Array) -> None:
    """Adds `values` to the given ascending distinct rows of `array`, in place."""
    if len(rows) == array.shape[0]:
        array += values
    else:
        xp = array_namespace(array)
        index = xp.asarray(rows, device=device(array))
        array[index] = xp.take(array, index, axis=0) + values


def guide(eps_cond: Array, eps_uncond: Array | None, scale: NDArray[np.float32], rows: NDArray[np.intp]) -> Array:
    """Classifier-free guidance eps_u + s (eps_c - eps_u), Ho and Salimans (2022), in the convention where s = 1 is off.

    Args:
        eps_cond: Conditional eps, float32 [N, C, H, W].
        eps_uncond: Unconditional eps of the guided rows alone, float32 [G, C, H, W]; `None` where G is 0.
        scale: s of every row, float32 [N].
        rows: Which rows are guided, ascending indices [G]; all others keep `eps_cond` untouched.

    Returns:
        float32 [N, C, H, W].

    Raises:
        ValueError: `eps_uncond` has not exactly one row for each guided row.
    """
    given = 0 if eps_uncond is None else eps_uncond.shape[0]
    if given != len(rows):
        raise ValueError(f"{given} unconditional rows for {len(rows)} guided rows: give one for each, in their order")
    if eps_uncond is None:
        return eps_cond
    guided = take_rows(eps_cond, rows) - eps_uncond
    guided *= column(scale[rows], eps_uncond)  # in place, here and below: fresh pages cost more than the arithmetic
    guided += eps_uncond
    return put_rows(eps_cond, rows, guided)


def clip_x0(x0: Array, percentile: NDArray[np.floating[Any]]) -> Array:
    """Clips the predicted x_0 to [-1, 1], each row by its own percentile.

    Percentile 0 clamps. A percentile p in (0, 1] is dynamic thresholding (Saharia et al. 2022, Imagen, section 2.3):
    s = max(quantile of |x_0| at p, 1), clamp to [-s, s], divide by s. The quantile interpolates linearly, as
    `numpy.quantile` and `torch.quantile` do.

    Args:
        x0: float32 [N, C, H, W].
        percentile: float32 or float64 [N].

    Returns:
        float32 [N, C, H, W]. NaN stays NaN, in its own row.
    """
    xp = array_namespace(x0)
    rows = np.flatnonzero(percentile)
    if not len(rows):
        return xp.clip(x0, min=-1.0, max=1.0)
    magnitudes = xp.abs(xp.reshape(take_rows(x0, rows), (len(rows), -1)))
    places = [_Place.of(float(percentile[row]), magnitudes.shape[1]) for row in rows]
    select = _numpy_quantile_or_one if is_numpy_namespace(xp) else _quantile
    quantiles = xp.concat([select(magnitudes[i, :], place) for i, place in enumerate(places)])
    limit = xp.ones((x0.shape[0],) + (1,) * (x0.ndim - 1), dtype=x0.dtype, device=device(x0))
    limit = put_rows(limit, rows, xp.clip(xp.reshape(quantiles, (-1, *limit.shape[1:])), min=1.0))
    clipped = xp.clip(x0, min=-limit, max=limit)
    clipped /= limit
    return clipped


def make_consistent(x0: Array, low_res: Array, share: NDArray[np.float32]) -> Array:
    """Corrects x_0 so that its area reduction equals the small image.

    The range-null-space decomposition of Wang et al. (2023), "Zero-Shot Image Restoration Using Denoising Diffusion
    Null-Space Model" (DDNM), eq. 13, for A = mean over f x f pixels, whose pseudo-inverse repeats pixels:
    x0 + share A^+ (y - A x0). Detail that the network adds to the small image stays. Contradictions to it, such as a
    drift of colours, are removed.

    Args:
        x0: float32 [N, C, f h, f w].
        low_res: y, float32 [N, C, h, w].
        share: float32 [N]; 1 makes A x0 = y.

    Returns:
        float32 [N, C, f h, f w], not clipped.
    """
    xp = array_namespace(x0)
    n, channels, height, width = low_res.shape
    factor = x0.shape[2] // height
    blocks = xp.reshape(x0, (n, channels, height, factor, width, factor))
    missing = low_res - xp.mean(blocks, axis=(3, 5))
    missing *= column(share, missing)
    return xp.reshape(blocks + missing[:, :, :, None, :, None], x0.shape)


class _Place(NamedTuple):
    """Where a quantile lies in a sorted vector: `weight` of the way from element `lower` to element `upper`."""

    lower: int
    upper: int
    weight: float

    @classmethod
    def of(cls, fraction: float, count: int) -> _Place:
        lower = math.floor(fraction * (count - 1))
        return cls(lower, min(lower + 1, count - 1), fraction * (count - 1) - lower)


def _quantile(values: Array, place: _Place) -> Array:
    """The quantile of a vector, shape [1], linearly interpolated."""
    return _interpolate(array_namespace(values).sort(values, stable=False), place)


def _numpy_quantile_or_one(values: Array, place: _Place) -> Array:
    """The quantile of a vector, shape [1], if it is above 1, else any number up to 1; same bits as `_quantile`.

    Sorting dominated a step. Only the elements near 1 and above can matter, and in most steps they are few.
    """
    large = values[~(values <= np.float32(0.999))]  # NaN is among them, last in ascending order as in a sort
    below = len(values) - len(large)
    if place.upper < below:
        return np.ones(1, dtype=np.float32)
    if place.lower < below:
        large, below = values, 0
    place = place._replace(lower=place.lower - below, upper=place.upper - below)
    return _interpolate(np.partition(large, (place.lower, place.upper)), place)


def _interpolate(ascending: Array, place: _Place) -> Array:
    # Slices, not elements: numpy's float32 scalars become float64 when they meet a Python float, arrays do not.
    low, high = ascending[place.lower : place.lower + 1], ascending[place.upper : place.upper + 1]
    return low + (high - low) * place.weight


def null_identity(count: int, identity_dim: int) -> NDArray[np.float32]:
    """The ID vectors of unconditional rows: 0-vectors, float32 [N, D] (the paper, section 3)."""
    return np.zeros((count, identity_dim), dtype=np.float32)


def null_attributes(count: int, attribute_dim: int) -> NDArray[np.float32]:
    """The attributes of unconditional rows: -1-vectors, float32 [N, A], since 0 is a valid attribute value."""
    return np.full((count, attribute_dim), -1.0, dtype=np.float32)
