"""A device that is not the CPU's: `array-api-strict` raises where anything sneaks through the host.

Copies are counted. A result is read only when it is waited for, as on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import array_api_strict as xp
import numpy as np
from numpy.typing import NDArray

from id3pm.engines.arrays import Array, HostTimer
from id3pm.errors import EngineError

DEVICE = xp.Device("device1")


class StrictArrays:
    """`Arrays` of a device that only its own methods can copy to and from.

    Attributes:
        to_device: Bytes of every copy to the device.
        from_device: Bytes of every copy from it.
        beside: Times that something was read beside the work under way.
        waits: Copies from it that have been waited for.
        fast_only: Whether copies from any memory but that of `host` are refused: on a GPU they would wait for it.
    """

    ahead = 1
    noise_threads = 2

    def __init__(self) -> None:
        self.to_device: list[int] = []
        self.from_device: list[int] = []
        self.waits = self.beside = 0
        self.fast_only = False
        self._fast: list[int] = []

    def use(self) -> None:
        pass

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        self.beside += 1
        yield

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        memory = np.empty(shape, np.float32)
        self._fast.append(memory.ctypes.data)
        return memory

    def from_host(self, array: NDArray[np.float32]) -> Array:
        assert not self.fast_only or array.ctypes.data in self._fast, "this copy would wait for the device"
        self.to_device.append(array.nbytes)
        return xp.asarray(array.copy(), device=DEVICE)

    def to_host(self, array: Array) -> Callable[[], NDArray[Any]]:
        assert array.device == DEVICE
        self.from_device.append(array._array.nbytes)

        def wait() -> NDArray[Any]:
            self.waits += 1
            copy: NDArray[Any] = array._array.copy()
            return copy

        return wait

    def timer(self) -> HostTimer:
        return HostTimer()


class StrictDeviceArrays(StrictArrays):
    """`DeviceArrays`: its addresses are those of the host memory behind the arrays, for runtimes that compute there.

    Attributes:
        recorded: Work of every graph.
        replayed: Numbers of the graphs that have been enqueued.
        can_record: Whether recording succeeds.
        full: Whether there is no memory left.
    """

    stream = 77
    capability = "sm86"

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[list[Callable[[], None]]] = []
        self.replayed: list[int] = []
        self.can_record = True
        self.full = False
        self.allocated: list[tuple[int, ...]] = []
        self._recording: list[Callable[[], None]] | None = None

    def zeros(self, shape: tuple[int, ...]) -> Array:
        if self.full:
            raise EngineError("out of memory")
        self.allocated.append(shape)
        return xp.zeros(shape, dtype=xp.float32, device=DEVICE)

    def address(self, array: Array) -> int:
        assert array.device == DEVICE and array._array.flags.c_contiguous
        return int(array._array.ctypes.data)

    def synchronize(self) -> None:
        assert self._recording is None

    def enqueue(self, work: Callable[[], None]) -> None:
        """What a runtime does with its work: it is done, or recorded."""
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        self._recording = []
        try:
            enqueue()
            if not self.can_record:
                raise EngineError("no CUDA graph: cudaErrorStreamCaptureInvalidated")
            work, number = self._recording, len(self.recorded)
        finally:
            self._recording = None
        self.recorded.append(work)

        def replay() -> None:
            self.replayed.append(number)
            for one in work:
                one()

        return replay
