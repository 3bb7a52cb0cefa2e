"""array-api-compat for the sampling loop: namespaces found quickly, and no wait for the device where it has one."""

from __future__ import annotations

from typing import Any

import array_api_compat
from array_api_compat import is_numpy_array

Array = Any  # numpy.ndarray, torch.Tensor, cupy.ndarray, or any other of the array API standard
_NAMESPACES: dict[type, Any] = {}  # a memo: finding one takes 5 us, and a step asks twenty times


def array_namespace(x: Array) -> Any:
    """The namespace of an array, as array-api-compat finds it."""
    found = _NAMESPACES.get(type(x))
    if found is None:
        found = _NAMESPACES[type(x)] = array_api_compat.array_namespace(x)
    return found


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
