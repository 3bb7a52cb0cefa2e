"""The CUDA runtime calls that the TensorRT engine needs, through NVIDIA's `cuda.bindings`, with errors raised."""

from __future__ import annotations

import importlib
from typing import Any

from id3pm.engines.inputs import FloatArray
from id3pm.errors import EngineError, MissingExtraError
from id3pm.installation import how_to_install


class Cuda:
    """One device and one stream on it. The caller calls `use()` in every thread first."""

    def __init__(self, device_index: int) -> None:
        """Picks a device and makes a stream (not the default one, on which no graph can be captured).

        Raises:
            MissingExtraError: cuda-bindings is not installed.
            EngineError: The device cannot be used.
        """
        try:
            self._api: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise MissingExtraError(f"cuda-bindings is not installed; run: {how_to_install('tensorrt')}") from error
        self._device_index = device_index
        self.use()
        self.stream = int(self._call("cudaStreamCreate"))

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._api, name)(*arguments)
        if status != self._api.cudaError_t.cudaSuccess:
            raise EngineError(f"{name} failed: {status.name}")
        return results[0] if results else None

    def use(self) -> None:
        """Makes this the current device of the calling thread."""
        self._call("cudaSetDevice", self._device_index)

    def capability(self) -> str:
        """Compute capability of the device, such as `sm86`."""
        names = self._api.cudaDeviceAttr
        major, minor = (
            int(self._call("cudaDeviceGetAttribute", attribute, self._device_index))
            for attribute in (names.cudaDevAttrComputeCapabilityMajor, names.cudaDevAttrComputeCapabilityMinor)
        )
        return f"sm{major}{minor}"

    def zeros(self, size: int) -> int:
        """The address of `size` new bytes of device memory, all zero."""
        address = int(self._call("cudaMalloc", size))
        self._call("cudaMemset", address, 0, size)
        return address

    def free(self, address: int) -> None:
        """Frees device memory."""
        self._call("cudaFree", address)

    def copy_in(self, address: int, array: FloatArray) -> None:
        """Enqueues a copy to the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def copy_out(self, array: FloatArray, address: int) -> None:
        """Enqueues a copy from the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def synchronize(self) -> None:
        """Waits until everything enqueued is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        """Begins a capture: enqueued calls are recorded, not executed. Calls of other threads do not disturb it."""
        self._call(
            "cudaStreamBeginCapture", self.stream, self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self) -> Any:
        """Ends the capture; returns the executable graph.

        Raises:
            EngineError: Something was enqueued that cannot be recorded; the stream can be used as before.
        """
        try:
            graph = self._call("cudaStreamEndCapture", self.stream)
            executable = self._call("cudaGraphInstantiate", graph, 0)
            self._call("cudaGraphDestroy", graph)
        except EngineError:
            self._api.cudaGetLastError()  # clears the error, which the next call would return
            raise
        return executable

    def launch(self, executable: Any) -> None:
        """Enqueues a recorded graph."""
        self._call("cudaGraphLaunch", executable, self.stream)

    def destroy_graph(self, executable: Any) -> None:
        """Frees a recorded graph."""
        self._call("cudaGraphExecDestroy", executable)

    def close(self) -> None:
        """Destroys the stream."""
        self._call("cudaStreamDestroy", self.stream)
