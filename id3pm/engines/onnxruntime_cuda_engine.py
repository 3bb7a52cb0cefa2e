"""ONNX graphs under onnxruntime on a CUDA GPU: inputs and output stay there, one CUDA graph per batch bucket.

The session works on the stream of the rows' arrays, so a call is one more piece of work on it. onnxruntime records a
graph when a run names an id (`gpu_graph_id`), and replays it afterwards. A replay reads and writes the addresses that
were recorded: those of `DeviceBuffers`, to which a call copies its rows, on the device.

What follows is by onnxruntime's source; this project could not measure it. A session on a stream of its user's waits
for it at the end of a run, unless the run says `disable_synchronize_execution_providers`. Before 1.28 a replay waits
all the same, so the sampling loop is not a step ahead of the device; from 1.28 on a replay only enqueues the graph
(microsoft/onnxruntime#28686). A recording belongs to the thread that made it, so the scheduler's thread makes its own,
in its second call of a bucket.

Binding, padding and the fall-back are tested on the CPU device, for which onnxruntime runs the same code. The CUDA
provider itself has never been executed by this project's tests, which have no GPU.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from id3pm.config import UNetConfig
from id3pm.engines.arrays import Array, DeviceArrays
from id3pm.engines.buckets import batch_buckets, bucket_of
from id3pm.engines.cupy_arrays import CupyArrays
from id3pm.engines.device_buffers import DeviceBuffers
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest
from id3pm.engines.onnxruntime_engine import import_onnxruntime, open_session, require_provider, session_options
from id3pm.errors import EngineError

logger = logging.getLogger(__name__)

PROVIDER = "CUDAExecutionProvider"
DEVICE = "cuda"
REPLAY_ENQUEUES = (1, 28)
"""The first version of onnxruntime whose replay of a CUDA graph need not wait for the device."""


class OnnxRuntimeCudaEngine:
    """An `Engine` over one `onnxruntime.InferenceSession` on a CUDA GPU."""

    def __init__(
        self, path: Path, manifest: Manifest, device_index: int = 0, arrays: DeviceArrays | None = None
    ) -> None:
        """Loads a graph, and runs every bucket once, so that no request waits for kernels.

        Args:
            path: The `.onnx` file, external weights beside it.
            manifest: The engine's manifest.
            device_index: Number of the CUDA device.
            arrays: Its memory; `None`: CuPy's.

        Raises:
            MissingExtraError: onnxruntime or CuPy is not installed.
            EngineError: The runtime lacks the CUDA provider, cannot start it, or cannot load the graph; or CuPy cannot
                use the device.
        """
        ort = import_onnxruntime()
        require_provider(ort, PROVIDER)
        self.config = manifest.unet
        self.max_batch = manifest.max_batch
        self.arrays: DeviceArrays = arrays or CupyArrays(device_index)
        self.description = f"onnxruntime {ort.__version__} {self.arrays.capability} {manifest.precision}"
        self._session = self._open(ort, path, device_index)
        self._buffers = DeviceBuffers(self.arrays, self.config, self.max_batch)
        self._bindings = {
            rows: _Binding(ort, self._session, self.config, rows, self._buffers, device_index)
            for rows in batch_buckets(self.max_batch, manifest.buckets)
        }
        for binding in self._bindings.values():
            binding.enqueue()
        self.arrays.synchronize()

    def _open(self, ort: Any, path: Path, device_index: int) -> Any:
        options = session_options(ort)
        given = provider_options(device_index, self.arrays.stream)
        try:
            session = open_session(ort, path, self.config, options, PROVIDER, given)
            if replay_waits(ort.__version__):
                logger.info("%s waits for the GPU in every call; onnxruntime-gpu 1.28 does not", self.description)
            return session
        except EngineError as error:
            # A graph with a single node that CUDA has no kernel for cannot be recorded; it may still run.
            plain = {**given, "enable_cuda_graph": 0}
            session = open_session(ort, path, self.config, options, PROVIDER, plain)
            logger.warning("%s without CUDA graphs: %s", self.description, error.__cause__ or error)
            return session

    def run(self, inputs: EngineInputs) -> Array:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        self._buffers.fill(inputs)
        self._bindings[bucket_of(rows, list(self._bindings))].enqueue()
        return self._buffers.output(rows)

    def close(self) -> None:
        """Frees the buffers and the session."""
        self.arrays.synchronize()
        self._bindings.clear()
        del self._buffers
        self._session = None


class _Binding:
    """The first rows of the buffers as inputs and output of a session, for one batch size."""

    def __init__(
        self, ort: Any, session: Any, config: UNetConfig, rows: int, buffers: DeviceBuffers, device_index: int
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        where = (DEVICE, device_index, np.float32)
        for name, shape in input_shapes(config, rows).items():
            self._binding.bind_input(name, *where, shape, buffers.addresses[name])
        self._binding.bind_output(OUTPUT_NAME, *where, output_shape(config, rows), buffers.addresses[OUTPUT_NAME])
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(rows))  # onnxruntime reserves 0
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def enqueue(self) -> None:
        """Runs the session on the current content of the buffers; on a device it may still be computing."""
        self._session.run_with_iobinding(self._binding, self._options)


def replay_waits(version: str) -> bool:
    """Whether this version of onnxruntime waits for the device whenever it replays a CUDA graph."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) < REPLAY_ENQUEUES


def provider_options(device_index: int, stream: int) -> dict[str, Any]:
    """Options of the CUDA provider for a device and a stream on it."""
    return {
        "device_id": device_index,
        "user_compute_stream": str(stream),
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles the arena: a request of 2 GB takes 4 GB
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE times kernels, so the next start might choose others
        "use_tf32": 0,  # fp32 means fp32
        "enable_cuda_graph": 1,
    }
