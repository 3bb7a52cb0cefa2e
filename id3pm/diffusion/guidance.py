"""Classifier-free guidance, dynamic thresholding, and the vectors that mean "no condition"; everything per row.

The functions take numpy, torch or CuPy arrays and return the kind they are given.
"""

from __future__ import annotations

import math
from typing import Any

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
    """`array[rows]` for ascending distinct rows; the array itself, not a copy, where that is all of them."""
    if len(rows) == array.shape[0]:
        return array
    xp = array_namespace(array)
    return xp.take(array, xp.asarray(rows, device=device(array)), axis=0)


def put_rows(array: Array, rows: NDArray[np.intp], values: Array) -> Array:
    """A copy of `array` with `values` in the given ascending distinct rows; `values` itself where that is all."""
    if len(rows) == array.shape[0]:
        return values
    xp = array_namespace(array)
    copy = xp.asarray(array, copy=True)
    copy[xp.asarray(rows, device=device(array))] = values
    return copy


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
    guided = eps_uncond + column(scale[rows], eps_uncond) * (take_rows(eps_cond, rows) - eps_uncond)
    return put_rows(eps_cond, rows, guided)


def clip_x0(x0: Array, percentile: NDArray[np.floating[Any]]) -> Array:
    """The predicted x_0 brought back into [-1, 1], each row in its own way.

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
    limit = xp.ones((x0.shape[0],) + (1,) * (x0.ndim - 1), dtype=x0.dtype, device=device(x0))
    rows = np.flatnonzero(percentile)
    if len(rows):
        magnitudes = _ordered(xp.abs(xp.reshape(take_rows(x0, rows), (len(rows), -1))), percentile[rows])
        quantiles = xp.concat([_quantile(magnitudes[i, :], float(percentile[row])) for i, row in enumerate(rows)])
        limit = put_rows(limit, rows, xp.clip(xp.reshape(quantiles, (-1, *limit.shape[1:])), min=1.0))
    return xp.clip(x0, min=-limit, max=limit) / limit


def _ordered(values: Array, fractions: NDArray[np.floating[Any]]) -> Array:
    """Each row [N, M] in ascending order, at least at the places that `_quantile` reads for the fractions."""
    xp = array_namespace(values)
    if not is_numpy_namespace(xp):
        return xp.sort(values, axis=1, stable=False)
    read = {index for fraction in fractions for index in _neighbours(float(fraction), values.shape[1] - 1)}
    return np.partition(values, sorted(read), axis=1)  # a third of a sort's time, which dominated a step


def _neighbours(fraction: float, last: int) -> tuple[int, int]:
    """The two places between which a quantile lies, the last one being `last`."""
    lower = math.floor(fraction * last)
    return lower, min(lower + 1, last)


def _quantile(ascending: Array, fraction: float) -> Array:
    """The quantile of a sorted vector, shape [1], linearly interpolated between its two nearest elements."""
    last = ascending.shape[0] - 1
    lower, upper = _neighbours(fraction, last)
    weight = fraction * last - lower
    # Slices, not elements: numpy's float32 scalars become float64 when they meet a Python float, arrays do not.
    low, high = ascending[lower : lower + 1], ascending[upper : upper + 1]
    return low + (high - low) * weight


def null_identity(count: int, identity_dim: int) -> NDArray[np.float32]:
    """The ID vectors of unconditional rows: 0-vectors, float32 [N, D] (the paper, section 3)."""
    return np.zeros((count, identity_dim), dtype=np.float32)


def null_attributes(count: int, attribute_dim: int) -> NDArray[np.float32]:
    """The attributes of unconditional rows: -1-vectors, float32 [N, A], since 0 is a valid attribute value."""
    return np.full((count, attribute_dim), -1.0, dtype=np.float32)
