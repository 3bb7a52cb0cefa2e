"""CuPy arrays of one CUDA device as `Arrays`: pinned host memory, a stream for an engine's work, one for reading.

Importing this module needs CuPy; `cupy_arrays` says what to install. Everything an engine does is enqueued on one
stream, in whatever thread: so the order of the work is the order of the calls, and memory that is freed is used again
after the work that reads it. Copies to the host alone are on a second stream, behind an event of the first: they hold
up no step, and their reader waits for none that is enqueued later.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.engines.arrays import NOISE_THREADS, Array, Timer
from id3pm.errors import EngineError, MissingExtraError
from id3pm.installation import how_to_install


def import_cupy() -> Any:
    """The module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise MissingExtraError(f"CuPy is not installed; run: {how_to_install('cuda')}") from error


class CupyArrays:
    """See `id3pm.engines.arrays.DeviceArrays`."""

    ahead = 1

    def __init__(self, device_index: int = 0) -> None:
        """Makes a stream on a device (not the default one, on which no graph can be recorded).

        Args:
            device_index: Number of the CUDA device.

        Raises:
            MissingExtraError: CuPy is not installed.
            EngineError: CuPy cannot use the device.
        """
        self._cupy = import_cupy()
        self._pinned = importlib.import_module("cupyx").empty_pinned
        self.noise_threads = max(1, min(NOISE_THREADS, (os.cpu_count() or 2) - 1))
        # Memory of copies that may not be done, behind an event that follows them: the pools of pinned memory and of a
        # stream's memory give what is freed to the next who asks, whatever another stream still has to do with it.
        self._kept: collections.deque[tuple[Any, list[Any]]] = collections.deque()
        self._sent: list[Any] = []  # since the last event
        self._lock = threading.Lock()
        try:
            self._device = self._cupy.cuda.Device(device_index)
            self._device.use()
            self._stream, self._copies = (self._cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise EngineError(f"CuPy cannot use CUDA device {device_index}: {error}") from error
        self.use()

    @property
    def stream(self) -> int:
        """See `DeviceArrays.stream`."""
        return int(self._stream.ptr)

    @property
    def capability(self) -> str:
        """Compute capability of the device, such as `sm86`."""
        return f"sm{self._device.compute_capability}"

    def use(self) -> None:
        """See `Arrays.use`."""
        self._device.use()
        self._stream.use()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See `Arrays.reading`."""
        cuda = self._cupy.cuda
        device = cuda.Device()  # the thread's own
        self._device.use()
        stream = cuda.get_current_stream()
        self._copies.use()
        try:
            yield
        finally:  # CuPy's own context manager would go back to the default stream, not to that of `use`
            stream.use()
            device.use()

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """See `Arrays.host`."""
        memory: NDArray[np.float32] = self._pinned(shape, np.float32)
        return memory

    def from_host(self, array: NDArray[np.float32]) -> Array:
        """See `Arrays.from_host`."""
        assert array.flags.c_contiguous, "need contiguous memory"
        copy = self._cupy.empty(array.shape, array.dtype)
        with self._lock:
            copy.data.copy_from_host_async(array.ctypes.data, array.nbytes, self._stream)
            self._sent.append(array)
        return copy

    def to_host(self, array: Array) -> Callable[[], NDArray[Any]]:
        """See `Arrays.to_host`."""
        array = self._cupy.ascontiguousarray(array)
        copy = self._pinned(array.shape, array.dtype)
        computed, done = (self._cupy.cuda.Event(disable_timing=True) for _ in range(2))
        kept = [array, copy]
        with self._lock:
            if self._cupy.cuda.get_current_stream() != self._copies:  # not within `reading`
                computed.record(self._stream)
                self._copies.wait_event(computed)
                kept += self._sent
                self._sent.clear()
            array.data.copy_to_host_async(copy.ctypes.data, copy.nbytes, self._copies)
            done.record(self._copies)
            while self._kept and self._kept[0][0].done:
                self._kept.popleft()
            self._kept.append((done, kept))

        def wait() -> NDArray[Any]:
            done.synchronize()
            result: NDArray[Any] = copy
            return result

        return wait

    def timer(self) -> Timer:
        """See `Arrays.timer`."""
        return _EventTimer(self._cupy.cuda, self._stream)

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """See `DeviceArrays.zeros`."""
        return self._cupy.zeros(shape, np.float32)

    def address(self, array: Array) -> int:
        """See `DeviceArrays.address`."""
        return int(array.__cuda_array_interface__["data"][0])

    def synchronize(self) -> None:
        """See `DeviceArrays.synchronize`."""
        self._stream.synchronize()

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """See `DeviceArrays.record`."""
        runtime = self._cupy.cuda.runtime
        try:
            # work of other threads does not disturb a recording of this mode
            self._stream.begin_capture(runtime.streamCaptureModeThreadLocal)
            try:
                enqueue()
            finally:
                graph = self._stream.end_capture()
        except runtime.CUDARuntimeError as error:
            raise EngineError(f"no CUDA graph: {error}") from error
        return lambda: graph.launch(self._stream)


class _EventTimer:
    """`Timer` by events of the stream."""

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._start, self._end = cuda.Event(), cuda.Event()
        self._start.record(stream)

    def stop(self) -> None:
        self._end.record(self._stream)

    def seconds(self) -> float:
        self._end.synchronize()
        return float(self._cuda.get_elapsed_time(self._start, self._end)) / 1000.0
