"""PyTorch tensors of one device as `Arrays`: pinned host memory, copies back on a stream of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from id3pm.engines.arrays import NOISE_THREADS, HostTimer, Timer


class TorchArrays:
    """See `id3pm.engines.arrays.Arrays`."""

    def __init__(self, device: torch.device | str, own_stream: bool = False) -> None:
        """Names a device.

        Args:
            device: A torch device; `cpu` serves tests.
            own_stream: On a GPU: work on a stream of its own, beside that of other engines in this process. The default
                is the stream that all threads share, on which one step follows the other.
        """
        self.device = torch.device(device)
        if str(self.device) == "cuda":
            self.device = torch.device("cuda", 0)  # `set_device` takes no other
        self._cuda = self.device.type == "cuda"
        self.ahead = int(self._cuda)
        self.noise_threads = max(1, min(NOISE_THREADS, (os.cpu_count() or 2) - 1))
        self._copies = _stream(self.device) if self._cuda else None
        self._own = _stream(self.device) if self._cuda and own_stream else None

    def use(self) -> None:
        """See `Arrays.use`."""
        if self._cuda:
            torch.cuda.set_device(self.device)
        if self._own is not None:
            torch.cuda.set_stream(self._own)

    def reading(self) -> AbstractContextManager[None]:
        """See `Arrays.reading`."""
        return contextlib.nullcontext() if self._copies is None else torch.cuda.stream(self._copies)

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """See `Arrays.host`."""
        return torch.empty(shape, dtype=torch.float32, pin_memory=self._cuda).numpy()

    def from_host(self, array: NDArray[np.float32]) -> Tensor:
        """See `Arrays.from_host`."""
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def to_host(self, array: Tensor) -> Callable[[], NDArray[Any]]:
        """See `Arrays.to_host`."""
        if self._copies is None:
            return array.numpy
        self._copies.wait_stream(torch.cuda.current_stream(self.device))  # nothing to wait for within `reading`
        with torch.cuda.stream(self._copies):
            copy = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
            copy.copy_(array, non_blocking=True)
            array.record_stream(self._copies)
            done = _event()
            done.record(self._copies)

        def wait() -> NDArray[Any]:
            done.synchronize()
            return copy.numpy()

        return wait

    def timer(self) -> Timer:
        """See `Arrays.timer`."""
        return _CudaTimer(self.device) if self._cuda else HostTimer()


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _event(*, timing: bool = False) -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]


class _CudaTimer:
    """`Timer` by events of the current stream."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._start, self._end = (_event(timing=True) for _ in range(2))
        self._start.record(self._stream)

    def stop(self) -> None:
        self._end.record(self._stream)

    def seconds(self) -> float:
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1000.0
