"""The functions of array-api-compat that sampling calls, for numpy, PyTorch and CuPy; where it is not installed.

Each namespace has the names and arguments of the array API standard that its library lacks or calls otherwise.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any


def is_numpy_array(x: Array) -> bool:
    """Whether `x` is a numpy array."""
    return isinstance(x, np.ndarray)


def device(x: Array) -> Any:
    """Where an array lives, as its library names it; `cpu` for numpy."""
    return "cpu" if is_numpy_array(x) else x.device


def array_namespace(x: Array) -> Any:
    """The namespace of an array.

    Raises:
        TypeError: It is of no library that is known here.
    """
    if is_numpy_array(x):
        return NUMPY
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return TorchNamespace(torch)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return NumpyNamespace(cupy)
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    raise TypeError(f"{type(x)} is no array of numpy, PyTorch or CuPy")


class _Namespace:
    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


class NumpyNamespace(_Namespace):
    """numpy of any version, or CuPy, which makes arrays on the current device."""

    def asarray(self, x: Array, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Array:
        """See the standard."""
        return self._library.array(x, dtype=dtype) if copy else self._library.asarray(x, dtype=dtype)

    def astype(self, x: Array, dtype: Any, *, copy: bool = True) -> Array:
        """See the standard."""
        return x.astype(dtype, copy=copy)

    def concat(self, arrays: Any, *, axis: int = 0) -> Array:
        """See the standard."""
        return self._library.concatenate(arrays, axis=axis)

    def clip(self, x: Array, *, min: Any = None, max: Any = None) -> Array:  # noqa: A002 - the standard's names
        """See the standard."""
        return self._library.clip(x, min, max)

    def sort(self, x: Array, *, axis: int = -1, stable: bool = True) -> Array:
        """See the standard; only values, so stable or not is the same."""
        return self._library.sort(x, axis=axis)

    def ones(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
        """See the standard."""
        return self._library.ones(shape, dtype=dtype)

    def arange(self, count: int, *, dtype: Any = None, device: Any = None) -> Array:
        """See the standard."""
        return self._library.arange(count, dtype=dtype)


class TorchNamespace(_Namespace):
    """PyTorch."""

    def astype(self, x: Array, dtype: Any, *, copy: bool = True) -> Array:
        """See the standard."""
        return x.to(dtype, copy=copy)

    def concat(self, arrays: Any, *, axis: int = 0) -> Array:
        """See the standard."""
        return self._library.cat(tuple(arrays), dim=axis)

    def stack(self, arrays: Any, *, axis: int = 0) -> Array:
        """See the standard."""
        return self._library.stack(tuple(arrays), dim=axis)

    def take(self, x: Array, index: Array, *, axis: int) -> Array:
        """See the standard."""
        return self._library.index_select(x, axis, index)

    def mean(self, x: Array, *, axis: Any) -> Array:
        """See the standard."""
        return self._library.mean(x, dim=axis)

    def all(self, x: Array, *, axis: Any) -> Array:
        """See the standard."""
        return self._library.all(x, dim=axis)

    def sort(self, x: Array, *, axis: int = -1, stable: bool = True) -> Array:
        """See the standard."""
        return self._library.sort(x, dim=axis, stable=stable).values

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        """See the standard."""
        return self._library.movedim(x, source, destination)

    def maximum(self, x: Array, y: Any) -> Array:
        """See the standard; NaN stays NaN. A number needs no array of its own."""
        return self._library.clamp(x, min=y) if isinstance(y, (int, float)) else self._library.maximum(x, y)

    def minimum(self, x: Array, y: Any) -> Array:
        """As `maximum`."""
        return self._library.clamp(x, max=y) if isinstance(y, (int, float)) else self._library.minimum(x, y)


NUMPY = NumpyNamespace(np)
