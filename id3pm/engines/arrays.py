"""The memory of an engine's rows: host memory for CPU engines, device memory for the others.

The sampler's arithmetic is written over the array API standard and runs wherever its arrays are. What crosses between
host and device goes through the methods here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = Any  # numpy.ndarray, torch.Tensor, cupy.ndarray, or any other of the array API standard
NOISE_THREADS = 4
"""Threads that draw noise for a GPU: 16 images of 256 px are 28 ms of one core, a step of them on an H100 about 50."""


class Timer(Protocol):
    """The seconds between its making and `stop`, on the clock of whoever computes."""

    def stop(self) -> None:
        """Ends the time; enqueued on a device."""
        ...

    def seconds(self) -> float:
        """Waits until `stop` has been reached, and says how long it was."""
        ...


class Arrays(Protocol):
    """One device's arrays, and the copies to it and from it.

    One thread uses it at a time, and calls `use` first; `host` may be called from any thread, and so may `to_host`
    within `reading`.

    Attributes:
        ahead: Steps that may be enqueued before the result of an earlier one is read; 0 where calls wait for theirs.
        noise_threads: Threads that draw noise beside the engine.
    """

    ahead: int
    noise_threads: int

    def use(self) -> None:
        """Makes the device, and the stream on which its work is enqueued, the calling thread's."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Within it the calling thread works beside what has been enqueued, not after it.

        For arrays that are computed already. The caller waits for what it began within, and keeps them until then.
        """
        ...

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """New float32 memory of the host, of the kind that copies to the device fastest."""
        ...

    def from_host(self, array: NDArray[np.float32]) -> Array:
        """The array on the device; enqueued. The caller writes to `array` no more until the step's result is read.

        The copy waits for nothing only if the memory is from `host`. On the host it is the array itself.
        """
        ...

    def to_host(self, array: Array) -> Callable[[], NDArray[Any]]:
        """Begins to copy an array to the host, after all that has been enqueued; the function waits for it.

        It waits for nothing that is enqueued later, and that does not wait for the copy.
        """
        ...

    def timer(self) -> Timer:
        """A timer that starts now, or when the device gets there."""
        ...


class DeviceArrays(Arrays, Protocol):
    """`Arrays` for a runtime that is given addresses: what `tensorrt` and `onnx-cuda` engines need of the device.

    Attributes:
        stream: Handle of the CUDA stream on which all work is enqueued.
        capability: Compute capability, such as `sm86`.
    """

    @property
    def stream(self) -> int:
        """See the attributes."""
        ...

    @property
    def capability(self) -> str:
        """See the attributes."""
        ...

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """New float32 memory of the device, all zero; enqueued."""
        ...

    def address(self, array: Array) -> int:
        """Where a contiguous array begins in the memory of the device."""
        ...

    def synchronize(self) -> None:
        """Waits until everything that has been enqueued is done."""
        ...

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Records what a function enqueues as a CUDA graph, without executing it; the result enqueues that again.

        Raises:
            EngineError: Something cannot be recorded. The stream can be used as before.
        """
        ...


class HostTimer:
    """`Timer` by the host's clock."""

    def __init__(self) -> None:
        self._start = self._end = time.perf_counter()

    def stop(self) -> None:
        """See `Timer.stop`."""
        self._end = time.perf_counter()

    def seconds(self) -> float:
        """See `Timer.seconds`."""
        return self._end - self._start


class HostArrays:
    """numpy in host memory. Calls return when they are done."""

    ahead = 0
    noise_threads = 1  # the engine has the other cores

    def use(self) -> None:
        """See `Arrays.use`; nothing to do."""

    def reading(self) -> AbstractContextManager[None]:
        """See `Arrays.reading`; nothing to do."""
        return contextlib.nullcontext()

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """See `Arrays.host`."""
        return np.empty(shape, np.float32)

    def from_host(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Arrays.from_host`."""
        return array

    def to_host(self, array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """See `Arrays.to_host`."""
        return lambda: array

    def timer(self) -> HostTimer:
        """See `Arrays.timer`."""
        return HostTimer()


HOST: Arrays = HostArrays()
