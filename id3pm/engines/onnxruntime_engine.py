"""ONNX graphs under onnxruntime on the CPU, and the code shared with `onnxruntime_cuda_engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from id3pm.config import UNetConfig
from id3pm.engines.arrays import HOST
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, FloatArray, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import BUILD_HINT, Manifest
from id3pm.engines.rows import RowWorkers
from id3pm.errors import EngineError, MissingExtraError
from id3pm.installation import how_to_install


class OnnxRuntimeEngine:
    """An `Engine` over one `onnxruntime.InferenceSession` on the CPU, which evaluates the rows of a call side by side.

    A lone row has all threads. A row's result does not depend on the others.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int | None = None) -> None:
        """Loads a graph.

        Args:
            path: The `.onnx` file; external weights beside it are memory-mapped by the runtime.
            manifest: The engine's manifest.
            threads: Threads of one call, or `None` for one per core.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            EngineError: The runtime cannot load the graph.
        """
        ort = import_onnxruntime()
        self.config = manifest.unet
        self.arrays = HOST
        self.max_batch = manifest.max_batch
        options = session_options(ort)
        self._workers = RowWorkers(threads)
        options.intra_op_num_threads = self._workers.count
        options.inter_op_num_threads = 1
        # Threads must not wait for work by spinning: other rows and the other stage's engine want the same cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = open_session(ort, path, self.config, options, "CPUExecutionProvider", {})
        self.description = f"onnxruntime {ort.__version__} CPU {manifest.precision}"

    def run(self, inputs: EngineInputs) -> FloatArray:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        output = np.empty(output_shape(self.config, rows), np.float32)

        def evaluate(row: int) -> None:
            part = slice(row, row + 1)
            (made,) = self._session.run([OUTPUT_NAME], {name: array[part] for name, array in inputs.items()})
            assert made.shape == output[part].shape and made.dtype == np.float32
            output[part] = made

        self._workers.each(rows, evaluate)
        return output

    def close(self) -> None:
        """Frees the session."""
        self._workers.close()
        self._session = None


def import_onnxruntime() -> Any:
    """The module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingExtraError(f"onnxruntime is not installed; run: {how_to_install('serve')}") from error
    return ort


def session_options(ort: Any) -> Any:
    """Options that hold for all providers."""
    options = ort.SessionOptions()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    # One plan of the arena per batch size would be kept for ever: 40 % more memory after a dozen sizes, and no faster.
    options.enable_mem_pattern = False
    return options


def require_provider(ort: Any, provider: str) -> None:
    """Refuses a runtime without an execution provider.

    Raises:
        EngineError: The installed package does not have it.
    """
    if provider not in ort.get_available_providers():
        raise EngineError(
            f"onnxruntime {ort.__version__} has no {provider} here; "
            "install onnxruntime-gpu in place of onnxruntime, or build with --target onnx-cpu"
        )


def open_session(
    ort: Any, path: Path, config: UNetConfig, options: Any, provider: str, provider_options: dict[str, Any]
) -> Any:
    """An `onnxruntime.InferenceSession` over a graph, whose inputs are checked against the architecture.

    Raises:
        EngineError: The runtime lacks the execution provider or cannot start it, or cannot load the graph.
    """
    require_provider(ort, provider)
    try:
        session = ort.InferenceSession(str(path), sess_options=options, providers=[(provider, provider_options)])
    except Exception as error:  # the runtime has no common base class for its load errors
        raise EngineError(f"onnxruntime {ort.__version__} cannot load this engine; {BUILD_HINT}") from error
    if provider not in session.get_providers():
        raise EngineError(f"onnxruntime could not start {provider}; check the CUDA and cuDNN installation")
    names = [node.name for node in session.get_inputs()]
    if names != list(input_shapes(config, 1)) or [node.name for node in session.get_outputs()] != [OUTPUT_NAME]:
        raise EngineError(f"the graph takes {', '.join(names)}, not what its manifest says; {BUILD_HINT}")
    return session
