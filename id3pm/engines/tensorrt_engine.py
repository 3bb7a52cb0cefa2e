"""TensorRT plans, from the data-centre `tensorrt` module or from `tensorrt_rtx` (TensorRT for RTX): one code path.

Device memory and copies go through NVIDIA's `cuda-python`. No plan has ever been executed by this project's tests,
which have no GPU: the checks are tested for real, the rest against stand-ins for both libraries.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, FloatArray, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest
from id3pm.errors import EngineError, MissingExtraError

MODULES = ("tensorrt", "tensorrt_rtx")
REBUILD = "run on this machine: python export/build_engines.py --target tensorrt"


class _Profile(NamedTuple):
    """An optimisation profile: the batch sizes it covers, and a context bound to it."""

    min_rows: int
    max_rows: int
    context: Any


class TensorRTEngine:
    """An `Engine` over one TensorRT plan, with a context per optimisation profile and buffers for `max_batch` rows."""

    def __init__(self, path: Path, manifest: Manifest, device_index: int = 0) -> None:
        """Deserialises a plan.

        Args:
            path: The `.plan` file.
            manifest: The engine's manifest.
            device_index: Number of the CUDA device.

        Raises:
            MissingExtraError: TensorRT or cuda-python is not installed.
            EngineError: The plan was built by another TensorRT version, or for another GPU, or cannot be loaded.
        """
        self.config = manifest.unet
        self.max_batch = manifest.max_batch
        self._device_index = device_index
        trt = import_runtime(manifest)
        self._cuda = _Cuda(device_index)
        check_capability(manifest, self._cuda.capability())
        self.description = f"{trt.__name__} {trt.__version__} {manifest.device} {manifest.precision}"
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._plan = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._plan is None:
            raise EngineError(f"{self.description}: the plan cannot be deserialised; {REBUILD}")
        self._stream = self._cuda.stream()
        shapes = {**input_shapes(self.config, self.max_batch), OUTPUT_NAME: output_shape(self.config, self.max_batch)}
        self._buffers = {name: self._cuda.malloc(4 * int(np.prod(shape))) for name, shape in shapes.items()}
        self._profiles = [self._profile(index) for index in range(self._plan.num_optimization_profiles)]

    def _profile(self, index: int) -> _Profile:
        context = self._plan.create_execution_context()
        if context is None or not context.set_optimization_profile_async(index, self._stream):
            raise EngineError(f"{self.description}: no memory for optimisation profile {index}")
        for name, address in self._buffers.items():
            context.set_tensor_address(name, address)
        smallest, _, largest = self._plan.get_tensor_profile_shape("x", index)
        return _Profile(smallest[0], largest[0], context)

    def run(self, inputs: EngineInputs) -> FloatArray:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        fitting = [profile for profile in self._profiles if profile.min_rows <= rows <= profile.max_rows]
        if not fitting:
            raise EngineError(f"{self.description}: no optimisation profile covers {rows} rows")
        context = min(fitting, key=lambda profile: profile.max_rows).context
        self._cuda.use()  # the current device belongs to a thread, and the loader's is not the scheduler's
        for name, array in inputs.items():
            context.set_input_shape(name, array.shape)
            self._cuda.copy_in(self._buffers[name], array, self._stream)
        if not context.execute_async_v3(self._stream):
            raise EngineError(f"{self.description}: execution failed")
        output = np.empty(output_shape(self.config, rows), dtype=np.float32)
        self._cuda.copy_out(output, self._buffers[OUTPUT_NAME], self._stream)
        self._cuda.synchronize(self._stream)
        return output

    def close(self) -> None:
        """Frees the contexts, the plan and the device buffers."""
        self._profiles.clear()
        self._plan = self._runtime = None
        self._cuda.use()
        while self._buffers:
            self._cuda.free(self._buffers.popitem()[1])
        self._cuda.destroy(self._stream)


def import_runtime(manifest: Manifest) -> Any:
    """The TensorRT module that built the plan; a plan runs under exactly the version that built it.

    Raises:
        MissingExtraError: The module is not installed.
        EngineError: Another version is installed, or the manifest does not name one.
    """
    name = next((module for module in MODULES if module in manifest.versions), None)
    if name is None:
        raise EngineError(f"the manifest's versions name none of {', '.join(MODULES)}; {REBUILD}")
    try:
        trt = importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} {manifest.versions[name]} is not installed: this engine needs it") from error
    if trt.__version__ != manifest.versions[name]:
        raise EngineError(
            f"{name} {trt.__version__} is installed, the engine was built by {manifest.versions[name]}; {REBUILD}"
        )
    return trt


def check_capability(manifest: Manifest, capability: tuple[int, int]) -> None:
    """Refuses a plan that was built for another compute capability than this GPU's.

    Raises:
        EngineError: `manifest.device` is not `sm<major><minor>` of `capability`.
    """
    here = "sm{}{}".format(*capability)
    if manifest.device != here:
        raise EngineError(f"this GPU is {here}, the engine was built for {manifest.device}; {REBUILD}")


class _Cuda:
    """The CUDA runtime calls the engine needs, with errors raised."""

    def __init__(self, device_index: int) -> None:
        try:
            self._api: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise MissingExtraError("cuda-python is not installed; run: pip install cuda-python") from error
        self._device_index = device_index
        self.use()

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._api, name)(*arguments)
        if status != self._api.cudaError_t.cudaSuccess:
            raise EngineError(f"{name} failed: {status.name}")
        return results[0] if results else None

    def use(self) -> None:
        self._call("cudaSetDevice", self._device_index)

    def capability(self) -> tuple[int, int]:
        names = self._api.cudaDeviceAttr
        major, minor = (
            int(self._call("cudaDeviceGetAttribute", attribute, self._device_index))
            for attribute in (names.cudaDevAttrComputeCapabilityMajor, names.cudaDevAttrComputeCapabilityMinor)
        )
        return major, minor

    def stream(self) -> int:
        return int(self._call("cudaStreamCreate"))

    def destroy(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def malloc(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def copy_in(self, address: int, array: FloatArray, stream: int) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def copy_out(self, array: FloatArray, address: int, stream: int) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)
