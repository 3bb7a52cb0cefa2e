"""The interface of all engines, and the loader that picks the runtime from an engine folder's manifest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from id3pm.config import UNetConfig
from id3pm.engines.arrays import Array, Arrays
from id3pm.engines.inputs import EngineInputs
from id3pm.engines.manifest import CPU_TARGETS, Manifest, read_manifest, verify_engine_file
from id3pm.engines.onnxruntime_cuda_engine import OnnxRuntimeCudaEngine
from id3pm.engines.onnxruntime_engine import OnnxRuntimeEngine
from id3pm.engines.openvino_engine import OpenVINOEngine
from id3pm.engines.tensorrt_engine import TensorRTEngine
from id3pm.engines.torch_engine import TorchCudaEngine
from id3pm.errors import EngineError

__all__ = ["Engine", "EngineInputs", "load_engine"]


class Engine(Protocol):
    """One U-Net that is ready to run. Not safe for concurrent calls: one thread owns it.

    Attributes:
        config: The architecture, which says what `run` takes and returns.
        max_batch: Most rows of one call.
        arrays: Memory of its inputs and its output.
        description: Runtime, version and precision, for receipts and logs.
    """

    config: UNetConfig
    max_batch: int
    description: str

    @property
    def arrays(self) -> Arrays:
        """See the attributes."""
        ...

    def run(self, inputs: EngineInputs) -> Array:
        """Evaluates the U-Net.

        Args:
            inputs: Contiguous float32 arrays of `arrays`, named and shaped as `inputs.input_shapes` says, 1 to
                `max_batch` rows.

        Returns:
            float32 [N, 3 or 6, S, S] of `arrays`, contiguous, owned by the caller. On a device it may still be
            computing.
        """
        ...

    def close(self) -> None:
        """Frees the runtime's memory; the engine cannot be used afterwards."""
        ...


def load_engine(folder: str | Path, device: str = "cpu", threads: int | None = None) -> Engine:
    """Loads the engine in a folder, after checking its manifest, its hash and the runtime.

    Args:
        folder: An engine folder as `id3pm build` leaves it.
        device: `cpu`, `cuda` or `cuda:<index>`; must suit the target the engine was built for.
        threads: CPU threads of one call, or `None` for the runtime's choice (all cores).

    Raises:
        EngineMissingError: No engine has been built in this folder.
        EngineError: The engine is damaged, or this machine cannot run it.
        MissingExtraError: The runtime is not installed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    index = _device_index(manifest, device)
    path = verify_engine_file(folder, manifest)
    if manifest.target == "tensorrt":
        return TensorRTEngine(path, manifest, device_index=index or 0)
    if manifest.target == "openvino-cpu":
        return OpenVINOEngine(path, manifest, threads=threads)
    if manifest.target == "onnx-cuda":
        return OnnxRuntimeCudaEngine(path, manifest, device_index=index or 0)
    if manifest.target == "torch-cuda":
        return TorchCudaEngine(path, manifest, device_index=index or 0)
    return OnnxRuntimeEngine(path, manifest, threads=threads)


def _device_index(manifest: Manifest, device: str) -> int | None:
    """The CUDA device's number, or `None` for the CPU; refuses a device that the engine was not built for."""
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise EngineError(f"device={device!r}: use cpu, cuda or cuda:<index>")
    if (device == "cpu") != (manifest.target in CPU_TARGETS):
        wanted = "--target cpu" if device == "cpu" else "--target onnx-cuda, --target tensorrt or --target torch-cuda"
        raise EngineError(
            f"device={device}: this engine was built for {manifest.target}; "
            f"choose another device or run: id3pm build {wanted}"
        )
    return None if device == "cpu" else int(match.group(1) or 0)
