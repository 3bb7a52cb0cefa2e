"""ONNX graphs under onnxruntime, on the CPU or a CUDA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, FloatArray, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import BUILD_HINT, Manifest
from id3pm.errors import EngineError, MissingExtraError


class OnnxRuntimeEngine:
    """An `Engine` over one `onnxruntime.InferenceSession`.

    On the CPU a row's fp32 result does not depend on the other rows of the call. The CUDA path (IO binding, fp32
    without TF32, fixed convolution heuristics) follows onnxruntime's documentation; it has not been executed by this
    project's tests, which have no GPU.
    """

    def __init__(
        self, path: Path, manifest: Manifest, device_index: int | None = None, threads: int | None = None
    ) -> None:
        """Loads a graph.

        Args:
            path: The `.onnx` file; external weights beside it are memory-mapped by the runtime.
            manifest: The engine's manifest.
            device_index: Number of the CUDA device, or `None` for the CPU.
            threads: CPU threads of one call, or `None` for one per core.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            EngineError: The runtime lacks the execution provider, or cannot load the graph.
        """
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingExtraError("onnxruntime is not installed; run: pip install 'id3pm[serve]'") from error
        self.config = manifest.unet
        self.max_batch = manifest.max_batch
        self._device_index = device_index
        provider, options = _provider(device_index)
        if provider not in ort.get_available_providers():
            raise EngineError(
                f"onnxruntime {ort.__version__} has no {provider} here; "
                "install onnxruntime-gpu in place of onnxruntime, or build with --target onnx-cpu"
            )
        try:
            self._session: Any = ort.InferenceSession(
                str(path), sess_options=_session_options(ort, threads), providers=[(provider, options)]
            )
        except Exception as error:  # the runtime has no common base class for its load errors
            raise EngineError(f"onnxruntime {ort.__version__} cannot load this engine; {BUILD_HINT}") from error
        if provider not in self._session.get_providers():
            raise EngineError(f"onnxruntime could not start {provider}; check the CUDA and cuDNN installation")
        names = [node.name for node in self._session.get_inputs()]
        if names != list(input_shapes(self.config, 1)) or [n.name for n in self._session.get_outputs()] != [
            OUTPUT_NAME
        ]:
            raise EngineError(f"the graph takes {', '.join(names)}, not what its manifest says; {BUILD_HINT}")
        where = "CPU" if device_index is None else "CUDA"
        self.description = f"onnxruntime {ort.__version__} {where} {manifest.precision}"

    def run(self, inputs: EngineInputs) -> FloatArray:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        output = self._run_cpu(inputs) if self._device_index is None else self._run_cuda(inputs)
        assert output.shape == output_shape(self.config, rows) and output.dtype == np.float32
        return output

    def _run_cpu(self, inputs: EngineInputs) -> FloatArray:
        output: FloatArray = self._session.run([OUTPUT_NAME], inputs)[0]
        return output

    def _run_cuda(self, inputs: EngineInputs) -> FloatArray:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output(OUTPUT_NAME, "cuda", self._device_index)
        self._session.run_with_iobinding(binding)
        output: FloatArray = binding.copy_outputs_to_cpu()[0]
        return output

    def close(self) -> None:
        """Frees the session."""
        self._session = None


def _provider(device_index: int | None) -> tuple[str, dict[str, Any]]:
    if device_index is None:
        return "CPUExecutionProvider", {}
    return "CUDAExecutionProvider", {
        "device_id": device_index,
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles: 2 GB asked, 4 GB taken
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE times kernels again for every new batch size
        "use_tf32": 0,  # fp32 means fp32
    }


def _session_options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # One plan of the arena per batch size would be kept for ever: 40 % more memory after a dozen sizes, and no faster.
    options.enable_mem_pattern = False
    # Threads must not spin between two calls: the other stage's engine wants the same cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
