"""A stand-in for CuPy's small surface that `CupyArrays` uses: device memory is host memory, work waits on its stream.

It proves the order of calls and what is kept, nothing about CUDA. `test_cupy_arrays.py` compares its names with the
real package's where that is installed.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import Any

import numpy as np


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class Pointer:
    """As `cupy.cuda.MemoryPointer`."""

    def __init__(self, array: np.ndarray) -> None:
        self.ptr = array.ctypes.data

    def copy_from_host_async(self, source: int, size: int, stream: Stream) -> None:
        stream.enqueue(lambda: ctypes.memmove(self.ptr, source, size))

    def copy_to_host_async(self, target: int, size: int, stream: Stream) -> None:
        stream.enqueue(lambda: ctypes.memmove(target, self.ptr, size))


class FakeArray:
    """As `cupy.ndarray`, without arithmetic."""

    def __init__(self, array: np.ndarray) -> None:
        self.numbers = array
        self.shape, self.dtype = array.shape, array.dtype
        self.data = Pointer(array)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"data": (self.data.ptr, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}


class Stream:
    """As `cupy.cuda.Stream`: work is done when a caller waits for it, or recorded."""

    current: Stream | None = None

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking
        self.ptr = 77
        self.waiting: list[Callable[[], object]] = []
        self.recording: list[Callable[[], object]] | None = None
        self.can_record = True

    def use(self) -> None:
        Stream.current = self

    def wait_event(self, event: Event) -> None:
        self.enqueue(event.synchronize)

    def enqueue(self, work: Callable[[], object]) -> None:
        (self.waiting if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def begin_capture(self, mode: int) -> None:
        assert mode == 1, "work of other threads would end the recording"
        self.recording = []

    def end_capture(self) -> Graph:
        recorded, self.recording = self.recording, None
        assert recorded is not None
        if not self.can_record:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return Graph(recorded)


class Graph:
    """As `cupy.cuda.Graph`."""

    def __init__(self, work: list[Callable[[], object]]) -> None:
        self._work = work

    def launch(self, stream: Stream) -> None:
        for one in self._work:
            stream.enqueue(one)


class Event:
    """As `cupy.cuda.Event`; its time is the number of works done before it."""

    works = 0

    def __init__(self, disable_timing: bool = False) -> None:
        self.done = False
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.done, self._stream = False, stream
        stream.enqueue(self._reached)

    def _reached(self) -> None:
        Event.works += 1
        self.time_ms, self.done = Event.works, True

    def synchronize(self) -> None:
        assert self._stream is not None
        while not self.done:
            self._stream.waiting.pop(0)()


class Device:
    """As `cupy.cuda.Device`."""

    compute_capability = "86"
    current: int | None = None
    count = 2

    def __init__(self, index: int | None = None) -> None:
        self._index = (Device.current or 0) if index is None else index

    def use(self) -> None:
        if self._index >= Device.count:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        Device.current = self._index


def fake_cupy() -> dict[str, types.ModuleType]:
    """The modules `cupy` and `cupyx`."""
    cupy, cupyx = types.ModuleType("cupy"), types.ModuleType("cupyx")
    cupy.__dict__.update(
        empty=lambda shape, dtype: FakeArray(np.full(shape, np.nan, dtype)),
        zeros=lambda shape, dtype: FakeArray(np.zeros(shape, dtype)),
        ascontiguousarray=lambda array: FakeArray(np.ascontiguousarray(array.numbers)),
        cuda=types.SimpleNamespace(
            Device=Device,
            Stream=Stream,
            Event=Event,
            get_current_stream=lambda: Stream.current,
            get_elapsed_time=lambda start, end: float(end.time_ms - start.time_ms),
            runtime=types.SimpleNamespace(CUDARuntimeError=CUDARuntimeError, streamCaptureModeThreadLocal=1),
        ),
    )
    cupyx.__dict__.update(empty_pinned=lambda shape, dtype: np.empty(shape, dtype))
    return {"cupy": cupy, "cupyx": cupyx}
