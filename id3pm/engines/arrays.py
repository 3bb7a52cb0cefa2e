"""The memory of an engine's rows: host memory for CPU engines, device memory for the others.

The sampler's arithmetic is written over the array API standard and runs wherever its arrays are. What crosses between
host and device goes through the methods here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = Any  # numpy.ndarray, torch.Tensor, cupy.ndarray, or any other of the array API standard


class Timer(Protocol):
    """The seconds between its making and `stop`, on the clock of whoever computes."""

    def stop(self) -> None:
        """Ends the time; enqueued on a device."""
        ...

    def seconds(self) -> float:
        """Waits until `stop` has been reached, and says how long it was."""
        ...


class Arrays(Protocol):
    """One device's arrays, and the copies to it and from it. One thread uses it, but for `to_host`.

    Attributes:
        ahead: Steps that may be enqueued before the result of an earlier one is read; 0 where calls wait for theirs.
        noise_threads: Threads that draw noise beside the engine.
    """

    ahead: int
    noise_threads: int

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """New float32 memory of the host, of the kind that copies to the device fastest."""
        ...

    def from_host(self, array: NDArray[np.float32]) -> Array:
        """The array on the device; enqueued. The caller keeps `array` as it is until the step's result is read.

        On the host it is the array itself.
        """
        ...

    def to_host(self, array: Array) -> Callable[[], NDArray[Any]]:
        """Begins to copy an array to the host, after all that has been enqueued; the function waits for it."""
        ...

    def timer(self) -> Timer:
        """A timer that starts now, or when the device gets there."""
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
