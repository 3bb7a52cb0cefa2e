"""ONNX graphs under OpenVINO, for CPUs with bf16 instructions (AMX, AVX-512).

OpenVINO applies one inference precision to a whole graph, and in bf16 a timestep of 999 is 1000: the embedding of time
and identity would be wrong. So the graph is cut in two where vectors become images. Operations on vectors (the
embeddings, and the scales and shifts of each block) run in fp32, operations on images in bf16. Kernels still accumulate
norms and softmax in fp32.
"""

from __future__ import annotations

import functools
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from id3pm.engines.arrays import HOST
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, FloatArray, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import BUILD_HINT, Manifest
from id3pm.engines.rows import RowWorkers
from id3pm.errors import EngineError, MissingExtraError
from id3pm.installation import how_to_install

IMAGE_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""OpenVINO precision of the image part by precision of the engine; an int8 graph also quantises convolutions."""
CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
VECTOR_RANK = 2
"""Tensors of up to this rank that depend on an input are vectors, [N] or [N, D]; the others are images and tokens."""


class OpenVINOEngine:
    """An `Engine` over two OpenVINO models: vectors in fp32, images in bf16 (convolutions of int8 engines in int8).

    The image model is compiled for one row, whose kernels are faster than those for any number, and evaluates the rows
    of a call side by side, one on each thread. Where that would leave half of the threads or more without work, the
    last rows run one after the other on all threads, in a second compilation (which costs its weights once more). A
    row's result does not depend on the other rows of the call.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int | None = None) -> None:
        """Loads a graph.

        Args:
            path: The `.onnx` file; external weights beside it are memory-mapped while it is compiled.
            manifest: The engine's manifest.
            threads: CPU threads of one call, or `None` for one per core.

        Raises:
            MissingExtraError: OpenVINO is not installed.
            EngineError: The processor lacks bf16 instructions, or OpenVINO cannot load the graph.
        """
        ov = _import_openvino()
        self.config = manifest.unet
        self.arrays = HOST
        self.max_batch = manifest.max_batch
        version = ov.__version__.split("-")[0]
        self.description = f"OpenVINO {version} CPU {manifest.precision}"
        images_in = IMAGE_PRECISIONS[manifest.precision]
        if images_in == "bf16" and (reason := why_no_bf16()) is not None:
            raise EngineError(f"{reason}; build for it with --precision fp32")
        core = _core()
        try:
            graph = core.read_model(path)
            names = [node.any_name for node in graph.inputs]
            if names != list(input_shapes(self.config, 1)) or graph.outputs[0].any_name != OUTPUT_NAME:
                raise EngineError(f"the graph takes {', '.join(names)}, not what its manifest says; {BUILD_HINT}")
            vectors, images = _cut(ov, graph)
            images.reshape({port.any_name: [1, *list(port.get_partial_shape())[1:]] for port in images.inputs})
            self._workers = RowWorkers(threads)
            count = self._workers.count
            self._vectors = core.compile_model(vectors, "CPU", _options("f32", count)).create_infer_request()
            self._alone = core.compile_model(images, "CPU", _options(images_in, count)).create_infer_request()
            self._beside: queue.SimpleQueue[Any] = queue.SimpleQueue()  # free infer requests
            if count > 1:
                model = core.compile_model(images, "CPU", _options(images_in, count, streams=count))
                for _ in range(count):
                    self._beside.put(model.create_infer_request())
        except RuntimeError as error:
            raise EngineError(f"OpenVINO {version} cannot load this engine; {BUILD_HINT}") from error
        self._vector_names = [port.any_name for port in vectors.inputs]
        self._image_names = [port.any_name for port in images.inputs if port.any_name in names]
        self._crossing = [port.any_name for port in vectors.outputs]

    def run(self, inputs: EngineInputs) -> FloatArray:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        made = self._vectors.infer({name: inputs[name] for name in self._vector_names}, share_inputs=True)
        images = {name: inputs[name] for name in self._image_names} | {name: made[name] for name in self._crossing}
        output = np.empty(output_shape(self.config, rows), np.float32)

        def evaluate(request: Any, row: int) -> None:
            part = slice(row, row + 1)
            given = {name: array[part] for name, array in images.items()}
            output[part] = request.infer(given, share_inputs=True, share_outputs=True)[OUTPUT_NAME]

        def beside(row: int) -> None:
            request = self._beside.get()
            try:
                evaluate(request, row)
            finally:
                self._beside.put(request)

        together = rows - _left_over(rows, self._workers.count)
        self._workers.each(together, beside)
        for row in range(together, rows):
            evaluate(self._alone, row)
        return output

    def close(self) -> None:
        """Frees the models."""
        self._workers.close()
        self._vectors = self._alone = None
        self._beside = queue.SimpleQueue()


def _left_over(rows: int, threads: int) -> int:
    """Rows at the end of a call that run one by one on all threads, because too few are left to run side by side."""
    if threads == 1:
        return rows
    left = rows % threads
    return left if 2 * left <= threads else 0


def why_no_bf16() -> str | None:
    """The reason why bf16 cannot be computed here; `None` if it can.

    Without such instructions OpenVINO would compute in fp32 and be slow.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    if "BF16" in _core().get_property("CPU", CAPABILITIES):
        return None
    return "this processor has no bf16 instructions (avx512_bf16 or amx_bf16)"


@functools.cache
def _core() -> Any:
    """The runtime of this process, started by a thread that ends at once.

    OpenVINO gives the thread that starts its CPU plugin a stack for signal handlers of its own, too small for what
    the dynamic linker saves there on processors with AMX: Python's handler of the next SIGINT or SIGTERM would end in a
    segmentation fault. Signals go to the main thread, so another thread must start the plugin.
    """

    def start() -> Any:
        core = _import_openvino().Core()
        core.get_property("CPU", CAPABILITIES)  # this loads the plugin
        return core

    with ThreadPoolExecutor(1) as aside:
        return aside.submit(start).result()


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(f"OpenVINO is not installed; run: {how_to_install('openvino')}") from error
    return openvino


def _options(precision: str, threads: int, streams: int = 1) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,  # calls at a time, which share the threads
        "ENABLE_CPU_PINNING": False,  # the engines of both stages would be pinned to the same cores
    }


def _cut(ov: Any, graph: Any) -> tuple[Any, Any]:
    """The graph as two: from the vector inputs to the last vectors, and from those and the image inputs to the output.

    A vector that passes from the first to the second has the same name in both.
    """
    vectors = {node for node in graph.get_parameters() if _is_vector(node.output(0))}
    for node in graph.get_ordered_ops():
        sources = [port.get_source_output().get_node() for port in node.inputs()]
        if any(source in vectors for source in sources) and all(map(_is_vector, node.outputs())):
            vectors.add(node)
    results: list[Any] = []
    parameters = [node for node in graph.get_parameters() if node not in vectors]
    for node in [node for node in graph.get_ordered_ops() if node in vectors]:
        for port in node.outputs():
            leaving = [target for target in port.get_target_inputs() if target.get_node() not in vectors]
            if leaving:
                name = f"vector_{len(results)}"
                parameter = ov.opset13.parameter(port.get_partial_shape(), port.get_element_type(), name)
                parameter.output(0).set_names({name})
                for target in leaving:
                    target.replace_source_output(parameter.output(0))
                port.set_names({name})
                results.append(ov.opset13.result(port))
                parameters.append(parameter)
    first = ov.Model(results, [node for node in graph.get_parameters() if node in vectors], "vectors")
    return first, ov.Model(graph.get_results(), parameters, "images")


def _is_vector(port: Any) -> bool:
    return bool(port.get_partial_shape().rank.get_length() <= VECTOR_RANK)
