"""A device that computes nothing: arrays that have shapes and no numbers, and a clock for its steps.

Methods and functions are those of the array API standard and of `id3pm.engines.arrays.Arrays`.
"""

# ruff: noqa: D102

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Nothing:
    """An array of a device: a shape, a dtype, and no numbers."""

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self.device = "nowhere"

    def __array_namespace__(self, api_version: str | None = None) -> type[Operations]:
        return Operations

    def _with(self, other: object) -> Nothing:
        shape = getattr(other, "shape", ())
        return Nothing(self.shape if shape in ((), self.shape) else np.broadcast_shapes(self.shape, shape), self.dtype)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _with

    def _in_place(self, other: object) -> Nothing:
        return self

    __iadd__ = __isub__ = __imul__ = __itruediv__ = _in_place

    def __neg__(self) -> Nothing:
        return Nothing(self.shape, self.dtype)

    def __getitem__(self, key: Any) -> Nothing:
        keys = [part for part in (key if isinstance(key, tuple) else (key,)) if part is not Ellipsis]
        shape, place = [], 0
        for part in keys:
            if part is None:
                shape.append(1)
                continue
            if isinstance(part, slice):
                shape.append(len(range(*part.indices(self.shape[place]))))
            place += 1
        return Nothing((*shape, *self.shape[place:]), self.dtype)


class Operations:
    """The functions of the array API that sampling uses, on `Nothing`."""

    float32, int64, uint8, bool = np.float32, np.int64, np.uint8, np.bool_

    @staticmethod
    def reshape(x: Nothing, shape: tuple[int, ...]) -> Nothing:
        known = math.prod(size for size in shape if size != -1)
        return Nothing(tuple(math.prod(x.shape) // known if size == -1 else size for size in shape), x.dtype)

    @staticmethod
    def concat(arrays: list[Nothing], axis: int = 0) -> Nothing:
        return Nothing((sum(x.shape[0] for x in arrays), *arrays[0].shape[1:]), arrays[0].dtype)

    @staticmethod
    def stack(arrays: list[Nothing]) -> Nothing:
        return Nothing((len(arrays), *arrays[0].shape), arrays[0].dtype)

    @staticmethod
    def take(x: Nothing, index: Nothing, axis: int = 0) -> Nothing:
        return Nothing((*index.shape, *x.shape[1:]), x.dtype)

    @staticmethod
    def same(x: Nothing, *_: Any, **__: Any) -> Nothing:
        return Nothing(x.shape, x.dtype)

    abs = exp = minimum = maximum = sort = isnan = zeros_like = asarray = same

    @staticmethod
    def isfinite(x: Nothing) -> Nothing:
        return Nothing(x.shape, np.bool_)

    @staticmethod
    def all(x: Nothing, axis: int) -> Nothing:
        return Nothing(x.shape[:axis] + x.shape[axis + 1 :], np.bool_)

    @staticmethod
    def mean(x: Nothing, axis: tuple[int, ...]) -> Nothing:
        return Nothing(tuple(size for place, size in enumerate(x.shape) if place not in axis), x.dtype)

    @staticmethod
    def where(condition: Nothing, x: Nothing, y: Nothing) -> Nothing:
        return Nothing(x.shape, x.dtype)

    @staticmethod
    def astype(x: Nothing, dtype: Any) -> Nothing:
        return Nothing(x.shape, dtype)

    @staticmethod
    def moveaxis(x: Nothing, source: int, to: int) -> Nothing:
        axes = list(range(x.ndim))
        axes.insert(to % x.ndim, axes.pop(source % x.ndim))
        return Nothing(tuple(x.shape[axis] for axis in axes), x.dtype)

    @staticmethod
    def ones(shape: tuple[int, ...], dtype: Any, device: str) -> Nothing:
        return Nothing(shape, dtype)

    @staticmethod
    def arange(count: int, dtype: Any, device: str) -> Nothing:
        return Nothing((count,), dtype)

    @staticmethod
    def broadcast_to(x: Nothing, shape: tuple[int, ...]) -> Nothing:
        return Nothing(shape, x.dtype)


_FREE = 3  # references: the pool's, a loop's, and the one of the question


class SimulatedDevice:
    """`Arrays` of `Nothing`, and a clock: every step that has been enqueued ends a step's time after the one before.

    Attributes:
        waited_s: Seconds for which the host waited for the device.
    """

    ahead = 1
    noise_threads = 4

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._pools: dict[tuple[int, ...], list[NDArray[np.float32]]] = {}
        self.waited_s = 0.0

    def use(self) -> None:
        pass

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        with self._lock:  # memory is used again, as by the pools of pinned memory of CuPy and PyTorch
            pool = self._pools.setdefault(shape, [])
            for memory in pool:
                if sys.getrefcount(memory) == _FREE:
                    return memory
            pool.append(np.empty(shape, np.float32))
            return pool[-1]

    def from_host(self, array: NDArray[np.float32]) -> Nothing:
        return Nothing(array.shape)

    def begin(self) -> None:
        """A step has been enqueued."""
        self._free_at = max(time.perf_counter(), self._free_at) + self._step_s

    def to_host(self, array: Nothing) -> Callable[[], NDArray[Any]]:
        ready = self._free_at

        def wait() -> NDArray[Any]:
            start = time.perf_counter()
            if ready > start:
                time.sleep(ready - start)
                self.waited_s += time.perf_counter() - start
            return np.ones(array.shape, array.dtype)

        return wait

    def timer(self) -> FixedTimer:
        return FixedTimer(self._step_s)


@dataclasses.dataclass
class FixedTimer:
    """What the device's events would say."""

    step_s: float

    def stop(self) -> None:
        pass

    def seconds(self) -> float:
        return self.step_s
