"""What the array API standard has, and array-api-compat does for CuPy with a wait for the device."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, is_numpy_array

Array = Any  # numpy.ndarray, torch.Tensor, cupy.ndarray, or any other of the array API standard


def clamp(x: Array, low: float | Array, high: float | Array) -> Array:
    """`x` between `low` and `high`; NaN stays NaN.

    array-api-compat's `clip` for CuPy selects by masks: their sizes must be known on the host, which waits for the
    device.

    Args:
        x: Any floating-point array.
        low: A number, or an array that broadcasts to the shape of `x`.
        high: As `low`.
    """
    xp = array_namespace(x)
    if is_numpy_array(x):
        return xp.clip(x, min=low, max=high)
    return xp.minimum(xp.maximum(x, low), high)
