"""fp32 ONNX graph -> mixed precision: fp16 or bf16 matrix work, fp32 norms, softmax, embeddings, inputs, outputs.

In half precision: convolutions and the products of attention, which are nearly all of the arithmetic, and what lies
between them (residual sums, affine part and SiLU of the norms, concatenation, resampling), which is bound by memory.
In fp32: the statistics of group norm, softmax, the embedding of time and conditions with all of its linear layers, and
the last convolution, because the sampler multiplies its output. (guided-diffusion's `use_fp16` keeps the same parts in
fp32.) A tensor is cast where the precision changes, once for all that read it.

TensorRT's networks are strongly typed, so the graph is where precision is decided; onnxruntime executes it as it is.
"""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from id3pm.errors import EngineError
from id3pm.export.engine_folder import ConversionJob
from id3pm.export.unet.onnx_export import Report, save

OPSETS = {"fp16": 20, "bf16": 22}
"""ONNX knows bf16 convolutions and pools from 22 on; nothing else of these graphs changes between the two."""
FULL = frozenset({"InstanceNormalization", "Softmax", "Gemm", "Cos", "Sin"})
MOVES = frozenset({"Reshape", "Transpose", "Split", "Concat", "Unsqueeze", "Squeeze", "Identity"})
"""Operators that compute nothing."""
FOLLOWS = MOVES | {"Add", "Mul", "Sigmoid", "Resize", "AveragePool", "QuantizeLinear", "DequantizeLinear"}
"""Operators that take the precision of their neighbours."""


def convert(job: ConversionJob, report: Report) -> dict[str, Any]:
    """Rewrites `job.graph` to `job.spec.precision`; see `engine_folder.ConversionJob`.

    Raises:
        EngineError: The graph has an operator that no rule covers, or a weight outside the range of fp16.
    """
    report(f"converting to {job.spec.precision}")
    return rewrite(job.graph, job.graph, job.spec.precision)


def rewrite(source: Path, graph: Path, precision: str, check: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Writes what `to_half` makes of a graph.

    Args:
        source: The graph to read.
        graph: The graph to write, with its external weights, in place of what is there; may be `source`.
        precision: `fp16` or `bf16`.
        check: Called with the `onnx_ir.Model` before it is changed.

    Returns:
        What the manifest says of it.

    Raises:
        EngineError: See `convert`.
    """
    import onnx_ir as ir

    model = ir.load(source)
    if check is not None:
        check(model)
    counts = to_half(ir, model, precision)
    with tempfile.TemporaryDirectory(dir=graph.parent) as folder:  # the weights are read while they are written
        save(ir, model, Path(folder) / graph.name)
        graph.with_name(graph.name + ".data").unlink(missing_ok=True)
        for file in Path(folder).iterdir():
            file.replace(graph.with_name(file.name))
    return {"in_half_precision": counts["half"], "in_fp32": counts["full"], "casts": counts["Cast"]}


def to_half(ir: Any, model: Any, precision: str) -> dict[str, Any]:
    """Rewrites an fp32 model in place.

    Args:
        ir: The module `onnx_ir`.
        model: An `onnx_ir.Model`. Weights are converted when they are read.
        precision: `fp16` or `bf16`.

    Returns:
        Operators by type that compute in `half` and in `full` precision, and the number of `Cast`s between them.

    Raises:
        EngineError: See `convert`.
    """
    dtype = ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.BFLOAT16
    half = half_nodes(model.graph)
    typer = _Typer(ir, model.graph, dtype)
    for node in list(model.graph):
        typer.set_type(node, dtype if node in half else ir.DataType.FLOAT)
    typer.drop_unused_weights()
    model.opset_imports[""] = OPSETS[precision]
    computing = [node for node in model.graph if node.op_type not in MOVES | {"Cast"}]
    return {
        "half": dict(sorted(Counter(node.op_type for node in computing if node in half).items())),
        "full": dict(sorted(Counter(node.op_type for node in computing if node not in half).items())),
        "Cast": sum(node.op_type == "Cast" for node in model.graph),
    }


def half_nodes(graph: Any) -> set[Any]:
    """The nodes that compute in half precision.

    Raises:
        EngineError: An operator is covered by no rule.
    """
    ordered = list(graph)
    half = {node for node in ordered if _is_half(node)}
    followers = {node for node in ordered if node.op_type in FOLLOWS and not node.outputs[0].is_graph_output()}
    # Backwards: what only half precision reads. Forwards: what reads half precision.
    for node in reversed(ordered):
        users = [use.node for output in node.outputs for use in output.uses()]
        if node in followers and users and all(user in half for user in users):
            half.add(node)
    for node in ordered:
        if node in followers and any(value is not None and value.producer() in half for value in node.inputs):
            half.add(node)
    return half


def _is_half(node: Any) -> bool:
    if node.op_type == "Conv":
        return not node.outputs[0].is_graph_output()
    if node.op_type == "MatMul":  # of attention; a linear layer's has constant weights
        return all(value.const_value is None for value in node.inputs)
    if node.op_type not in FULL | FOLLOWS:
        raise EngineError(f"{node.op_type}: no rule says in which precision this operator computes")
    return False


class _Typer:
    """Gives the nodes of a graph their types, in order, with casts and converted weights where they are needed."""

    def __init__(self, ir: Any, graph: Any, half: Any) -> None:
        self._ir, self._graph = ir, graph
        self._floats = (ir.DataType.FLOAT, half)
        self._casts: dict[tuple[str, Any], Any] = {}

    def set_type(self, node: Any, dtype: Any) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in self._floats or value.dtype == dtype:
                continue
            if node.op_type == "Resize" and index > 0:  # scales are fp32 always
                continue
            key = (value.name, dtype)
            if key not in self._casts:
                self._casts[key] = (
                    self._weight(value, dtype) if value.is_initializer() else self._cast(node, value, dtype)
                )
            node.replace_input_with(index, self._casts[key])
        for output in node.outputs:
            if output.dtype in self._floats:  # not the integers of a QuantizeLinear
                output.dtype = dtype

    def _cast(self, before: Any, value: Any, dtype: Any) -> Any:
        node = self._ir.node("Cast", [value], attributes={"to": dtype})
        node.outputs[0].name = f"{value.name}.{_name(dtype)}"
        node.outputs[0].shape, node.outputs[0].dtype = value.shape, dtype
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def _weight(self, value: Any, dtype: Any) -> Any:
        name = f"{value.name}.{_name(dtype)}"
        if dtype == self._ir.DataType.FLOAT16:
            _require_range(value.const_value)
        tensor = self._ir.LazyTensor(
            functools.partial(converted, self._ir, value.const_value, dtype, name),
            dtype=dtype,
            shape=value.const_value.shape,
            name=name,
        )
        weight = self._ir.Value(name=name, shape=tensor.shape, type=self._ir.TensorType(dtype), const_value=tensor)
        self._graph.register_initializer(weight)
        return weight

    def drop_unused_weights(self) -> None:
        for name in [name for name, value in self._graph.initializers.items() if not value.uses()]:
            del self._graph.initializers[name]


def converted(ir: Any, tensor: Any, dtype: Any, name: str) -> Any:
    """A tensor in another precision, rounded to nearest."""
    return ir.tensor(tensor.numpy().astype(dtype.numpy()), name=name)


def _require_range(tensor: Any) -> None:
    largest = float(np.abs(tensor.numpy()).max(initial=0.0))
    if not largest <= np.finfo(np.float16).max:
        raise EngineError(
            f"{tensor.name} has values up to {largest:.3g}, fp16 ends at 65504; build with --precision bf16"
        )


def _name(dtype: Any) -> str:
    return {"FLOAT16": "fp16", "BFLOAT16": "bf16", "FLOAT": "fp32"}[dtype.name]
