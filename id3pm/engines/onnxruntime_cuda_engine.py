"""ONNX graphs under onnxruntime on a CUDA GPU: device-resident inputs and output, one CUDA graph per batch bucket.

onnxruntime records a graph when a run names an id (`gpu_graph_id`) for the first time, and replays it afterwards. A
replay reads and writes the addresses that were recorded, so every bucket has tensors of its own, bound once; a call
copies its rows into those of the smallest bucket that holds them. The other rows of the bucket compute on old data and
are ignored.

Buffers, binding, padding and the fall-back are tested on the CPU device, for which onnxruntime runs the same code. The
CUDA provider itself has never been executed by this project's tests, which have no GPU.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from id3pm.config import UNetConfig
from id3pm.engines.arrays import HOST
from id3pm.engines.buckets import batch_buckets, bucket_of
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, FloatArray, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest
from id3pm.engines.onnxruntime_engine import import_onnxruntime, open_session, session_options
from id3pm.errors import EngineError

logger = logging.getLogger(__name__)

PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaEngine:
    """An `Engine` over one `onnxruntime.InferenceSession` on a CUDA GPU."""

    def __init__(self, path: Path, manifest: Manifest, device_index: int = 0) -> None:
        """Loads a graph, and runs every bucket once, so that no request waits for kernels.

        Args:
            path: The `.onnx` file, external weights beside it.
            manifest: The engine's manifest.
            device_index: Number of the CUDA device.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            EngineError: The runtime lacks the CUDA provider, cannot start it, or cannot load the graph.
        """
        ort = import_onnxruntime()
        self.config = manifest.unet
        self.arrays = HOST
        self.max_batch = manifest.max_batch
        self.description = f"onnxruntime {ort.__version__} CUDA {manifest.precision}"
        options = session_options(ort)
        try:
            self._session = open_session(ort, path, self.config, options, PROVIDER, provider_options(device_index))
        except EngineError as error:
            # A graph with a single node that CUDA has no kernel for cannot be recorded; it may still run.
            plain = provider_options(device_index, cuda_graphs=False)
            self._session = open_session(ort, path, self.config, options, PROVIDER, plain)
            logger.warning("%s without CUDA graphs: %s", self.description, error.__cause__ or error)
        self._buckets = bind_buckets(ort, self._session, self.config, self.max_batch, "cuda", device_index)
        for bucket in self._buckets.values():
            bucket.execute()

    def run(self, inputs: EngineInputs) -> FloatArray:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        return self._buckets[bucket_of(rows, list(self._buckets))].run(inputs)

    def close(self) -> None:
        """Frees the buffers and the session."""
        self._buckets.clear()
        self._session = None


class BoundBatch:
    """Tensors of one batch size on a device, bound to the inputs and the output of a session."""

    def __init__(self, ort: Any, session: Any, config: UNetConfig, rows: int, device: str, device_index: int) -> None:
        """Allocates and binds.

        Args:
            ort: The module `onnxruntime`.
            session: The session to run.
            config: The architecture.
            rows: The batch size.
            device: `cuda`; in tests `cpu`.
            device_index: Number of the device.
        """
        self._session = session
        self._host = {name: np.zeros(shape, dtype=np.float32) for name, shape in input_shapes(config, rows).items()}
        self._binding = session.io_binding()
        self._tensors = {}
        for name, array in self._host.items():
            self._tensors[name] = ort.OrtValue.ortvalue_from_numpy(array, device, device_index)
            self._binding.bind_ortvalue_input(name, self._tensors[name])
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(
            output_shape(config, rows), np.float32, device, device_index
        )
        self._binding.bind_ortvalue_output(OUTPUT_NAME, self._output)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(rows))  # onnxruntime reserves 0

    def run(self, inputs: EngineInputs) -> FloatArray:
        """The outputs of rows, of which there may be fewer than the batch has."""
        rows = len(inputs["x"])
        for name, array in inputs.items():
            self._host[name][:rows] = array
            self._tensors[name].update_inplace(self._host[name])
        self.execute()
        output: FloatArray = self._output.numpy()[:rows].copy()  # on the CPU numpy() is the tensor itself
        return output

    def execute(self) -> None:
        """Runs the session on the current content of the tensors."""
        self._session.run_with_iobinding(self._binding, self._options)


def bind_buckets(
    ort: Any, session: Any, config: UNetConfig, max_batch: int, device: str, device_index: int
) -> dict[int, BoundBatch]:
    """A `BoundBatch` for every bucket, by its size."""
    return {rows: BoundBatch(ort, session, config, rows, device, device_index) for rows in batch_buckets(max_batch)}


def provider_options(device_index: int, *, cuda_graphs: bool = True) -> dict[str, Any]:
    """Options of the CUDA provider."""
    return {
        "device_id": device_index,
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles the arena: a request of 2 GB takes 4 GB
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE times kernels, so the next start might choose others
        "use_tf32": 0,  # fp32 means fp32
        "enable_cuda_graph": int(cuda_graphs),
    }
