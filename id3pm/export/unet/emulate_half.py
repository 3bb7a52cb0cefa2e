"""Emulates a half-precision graph on a CPU: fp32 arithmetic, every result rounded to half.

onnxruntime's CPU provider runs fp16 graphs in fp32 and drops the casts between two operators: nothing is rounded and
nothing overflows, so it proves nothing. Here every operator is kept, computes in fp32 on operands that are exact in
half precision, and its result is rounded, as on tensor cores, which accumulate in fp32. GPUs that fuse
operators round less often, so the errors measured here are not too small.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from id3pm.export.unet.mixed_precision import MOVES, OPSETS, converted
from id3pm.export.unet.onnx_export import save


def evaluable(graph: Path, folder: Path, precision: str) -> tuple[Path, str]:
    """A graph that onnxruntime's CPU provider evaluates with the rounding of `precision`.

    Args:
        graph: The graph an engine is built from.
        folder: An empty folder for the one that is evaluated, where another is needed.
        precision: Of the graph.

    Returns:
        The graph to evaluate, and in words how that is done.
    """
    half = "fp16" if precision == "int8" else precision  # what is not quantised
    if half not in OPSETS:
        return graph, "onnxruntime on the CPU"
    write_rounded(graph, folder / graph.name)
    return folder / graph.name, f"onnxruntime on the CPU in fp32, the result of every operator rounded to {half}"


def write_rounded(graph: Path, path: Path) -> None:
    """Writes an fp32 graph that computes what a half-precision graph does.

    Args:
        graph: A graph as `mixed_precision.convert` leaves it.
        path: The file to write, in another folder.
    """
    import onnx_ir as ir

    model = ir.load(graph)
    for value in list(model.graph.initializers.values()):
        if _is_half(ir, value.dtype):
            _to_float(ir, value)
    for node in list(model.graph):
        if any(_is_half(ir, output.dtype) for output in node.outputs):
            _round(ir, model.graph, node)
        elif node.op_type == "Cast":
            node.op_type = "Identity"  # from half, exact
            node.attributes.clear()
    save(ir, model, path)


def _is_half(ir: Any, dtype: Any) -> bool:
    return dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _to_float(ir: Any, value: Any) -> None:
    read = functools.partial(converted, ir, value.const_value, ir.DataType.FLOAT, value.name)
    value.const_value = ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=value.const_value.shape, name=value.name)
    value.dtype = ir.DataType.FLOAT


def _round(ir: Any, graph: Any, node: Any) -> None:
    """Makes the outputs of a node fp32, with values that are exact in half precision."""
    for output in node.outputs:
        dtype, output.dtype = output.dtype, ir.DataType.FLOAT
        if node.op_type in MOVES:
            continue
        nodes, value = [], output
        if node.op_type == "Cast":  # to half: it rounds by itself
            output.dtype = dtype
        else:
            nodes.append(ir.node("Cast", [output], attributes={"to": dtype}))
            value = nodes[0].outputs[0]
            value.name, value.shape, value.dtype = f"{output.name}.half", output.shape, dtype
        nodes.append(ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT}))
        rounded = nodes[-1].outputs[0]
        rounded.name, rounded.shape, rounded.dtype = f"{output.name}.rounded", output.shape, ir.DataType.FLOAT
        for use in list(output.uses()):
            if use.node not in nodes:
                use.node.replace_input_with(use.idx, rounded)
        graph.insert_after(node, nodes)
