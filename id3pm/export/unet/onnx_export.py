"""Bundle -> ONNX: one fp32 graph with a free batch axis, simplified, checked, the same bytes on every run.

The weights never pass through the simplifier: they become graph inputs for its sake, and are then streamed from the
PyTorch module into the file. So a full-size network (295 M parameters) needs a small multiple of its own size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from id3pm.engines.inputs import OUTPUT_NAME, input_shapes
from id3pm.errors import EngineError, MissingExtraError
from id3pm.export.unet import onnx_operators
from id3pm.export.unet.winograd import to_winograd
from id3pm.formats.bundle import Stage, load_weights, read_bundle
from id3pm.installation import how_to_install

OPSET = 20
"""The newest that onnxruntime 1.20, TensorRT 10 and PyTorch's exporter all know."""
EXTERNAL_DATA_BYTES = 2**30
"""Above this the weights lie in `<file>.data`: protobuf ends at 2 GiB, and runtimes memory-map the extra file."""
MANY_ELEMENTS = 2**14
"""Constants larger than this are matrices, which the simplifier need not see; shapes, biases and norms are smaller."""
EXAMPLE_ROWS = 2  # any number above 1: the exporter specialises on 0 and 1

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """What was exported.

    Attributes:
        opset: Version of the ONNX operator set.
        nodes_before: Nodes as PyTorch's exporter left them.
        nodes_after: Nodes as written: simplified, and more where convolutions were rewritten.
    """

    opset: int
    nodes_before: int
    nodes_after: int


def export_onnx(
    bundle: Path,
    stage: Stage,
    path: Path,
    report: Report = lambda _: None,
    *,
    winograd: bool = False,
    rewrites: Collection[str] | None = None,
    operators: bool = True,
) -> OnnxGraph:
    """Writes the U-Net of one stage as `path`, with external weights `<path>.data` where they exceed 1 GiB.

    Inputs and output are named and shaped as `id3pm.engines.inputs` says; the batch axis is called `batch`.

    Args:
        bundle: The bundle's folder.
        stage: `base` or `sr`.
        path: The file to write, ending in `.onnx`.
        report: Called with a few words at the start of each phase.
        winograd: Rewrite wide convolutions for onnxruntime's CPU kernels; see `winograd.to_winograd`. Their weights
            take up to four times the space.
        rewrites: Which of `onnx_modules.REWRITES`, `None` for all; fewer only to measure what each is worth.
        operators: Write group norm, attention and resizing as `onnx_operators` does; off only to measure the same.

    Raises:
        BundleError: The bundle is incomplete or damaged.
        EngineError: The graph did not pass the checker.
        MissingExtraError: A library of the `export` extra is not installed.
    """
    ir, onnx = _import_libraries()
    report("exporting to ONNX")
    model = _trace(bundle, stage, rewrites, operators)
    nodes_before = sum(1 for _ in model.graph)
    report(f"simplifying {nodes_before} nodes")
    model = _simplify(ir, model)
    if winograd:
        to_winograd(ir, model)
    nodes_after = sum(1 for _ in model.graph)
    report(f"writing {nodes_after} nodes")
    _drop_build_traces(model)
    save(ir, model, path)
    report("checking the graph")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"{path.name} is not valid ONNX: {error}") from error
    return OnnxGraph(opset=OPSET, nodes_before=nodes_before, nodes_after=nodes_after)


def _import_libraries() -> tuple[Any, Any]:
    try:
        import onnx
        import onnx_ir
        import onnxscript  # noqa: F401  PyTorch's exporter needs it
        import onnxslim  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{error.name} is not installed; run: {how_to_install('export')}") from error
    return onnx_ir, onnx


def _trace(bundle: Path, stage: Stage, rewrites: Collection[str] | None, operators: bool) -> Any:
    """The stage's U-Net as an onnx_ir.Model, whose weights are those of the PyTorch module (no copy)."""
    import torch

    from id3pm.export.unet.onnx_modules import REWRITES, rewrite
    from id3pm.unet.model import load_unet

    description = read_bundle(bundle)
    config = description.base if stage == "base" else description.sr
    unet = load_unet(config, load_weights(bundle, stage)).requires_grad_(False)
    rewrite(unet, REWRITES if rewrites is None else rewrites)
    example = {name: torch.zeros(shape) for name, shape in input_shapes(config, EXAMPLE_ROWS).items()}
    batch = torch.export.Dim("batch")
    with _quiet_exporter():
        program = torch.onnx.export(
            unet,
            kwargs=example,
            dynamo=True,
            dynamic_shapes={name: {0: batch} for name in example},
            input_names=list(example),
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            custom_translation_table=onnx_operators.translations() if operators else None,
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns the program
    return program.model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences what PyTorch says about itself on every export, and nothing else."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # "torchvision is not installed", once per operator
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name: batch will not be used.*", category=UserWarning)
            yield
    finally:
        registration.setLevel(level)


def _simplify(ir: Any, model: Any) -> Any:
    """The model after onnxslim, which sees the weights as graph inputs."""
    import onnxslim

    graph = model.graph
    weights = {
        value.name: value.const_value for value in graph.initializers.values() if value.const_value.size > MANY_ELEMENTS
    }
    for name in weights:
        graph.inputs.append(graph.initializers.pop(name))
    slim = ir.from_proto(onnxslim.slim(ir.to_proto(model)))
    inputs = list(slim.graph.inputs)
    slim.graph.inputs.clear()
    for value in inputs:
        if value.name in weights:
            value.const_value = weights[value.name]
            slim.graph.register_initializer(value)
        else:
            slim.graph.inputs.append(value)
    return slim


def _drop_build_traces(model: Any) -> None:
    """Forgets the exporter's notes (stack traces with the builder's paths): they say nothing about the model."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.producer_version = importlib.metadata.version("torch")


def save(ir: Any, model: Any, path: Path) -> None:
    """Writes an `onnx_ir.Model`, its weights beside it as `<path>.data` where they exceed 1 GiB."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if size > EXTERNAL_DATA_BYTES:
        ir.save(model, path, external_data=path.name + ".data")
    else:  # a model that was read from a larger one may still refer to that one's external weights
        ir.save(ir.external_data.load_to_model(model), path)
