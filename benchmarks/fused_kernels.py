"""onnxruntime's fused operators beside the patterns that the export writes, on the CPU.

    python benchmarks/fused_kernels.py [--rows 8] [--repeats 15]

The forms that the export writes come first; the others compute the same. SiLU needs no row of its own: onnxruntime
fuses x * sigmoid(x) into one kernel (`QuickGelu`) in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray
from onnx_ir.tape import Tape

import report
import sessions

GROUPS, EPS = 32, 1e-5
HEAD = 64  # channels of a head
MICROSOFT = "com.microsoft"
Form = Callable[[Any, Mapping[str, Any]], Any]


class Case(NamedTuple):
    """One computation at one size.

    Attributes:
        name: For the table.
        inputs: Shapes without the batch axis.
        forms: How it can be written; the first is what the export writes.
        opset: Version of ONNX that knows all forms.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    forms: Mapping[str, Form]
    opset: int


def attention(channels: int, size: int) -> Case:
    """Self-attention of an image whose q, k and v [N, 3C, S, S] a 1x1 convolution has written."""
    heads, tokens, image = channels // HEAD, size * size, (0, channels, size, size)

    def pattern(op: Any, given: Mapping[str, Any]) -> Any:
        parts = op.Split(given["qkv"], axis=1, num_outputs=3, outputs=3)
        q, k, v = (op.Reshape(part, _ints(0, heads, HEAD, tokens)) for part in parts)
        scores = op.MatMul(op.Transpose(op.Mul(q, _floats(HEAD**-0.5)), perm=[0, 1, 3, 2]), k)
        mixed = op.MatMul(op.Softmax(scores, axis=-1), op.Transpose(v, perm=[0, 1, 3, 2]))
        return op.Reshape(op.Transpose(mixed, perm=[0, 1, 3, 2]), _ints(*image))

    def operator(op: Any, given: Mapping[str, Any]) -> Any:
        rows = op.Transpose(op.Reshape(given["qkv"], _ints(0, 3 * heads, HEAD, tokens)), perm=[0, 1, 3, 2])
        q, k, v = op.Split(rows, axis=1, num_outputs=3, outputs=3)
        return op.Reshape(op.Transpose(op.Attention(q, k, v), perm=[0, 1, 3, 2]), _ints(*image))

    def microsoft(op: Any, given: Mapping[str, Any]) -> Any:
        rows = op.Transpose(op.Reshape(given["qkv"], _ints(0, 3 * channels, tokens)), perm=[0, 2, 1])
        q, k, v = op.Split(rows, axis=2, num_outputs=3, outputs=3)
        mixed = op.MultiHeadAttention(q, k, v, num_heads=heads, domain=MICROSOFT)
        return op.Reshape(op.Transpose(mixed, perm=[0, 2, 1]), _ints(*image))

    forms = {"products": pattern, "Attention (opset 23)": operator, f"{MICROSOFT}.MultiHeadAttention": microsoft}
    return Case(f"attention, {tokens} tokens, {heads} heads", {"qkv": (3 * channels, size, size)}, forms, 23)


def adaptive_norm(channels: int, size: int) -> Case:
    """SiLU(group norm(x) gain + offset), gain and offset [N, C, 1, 1]."""
    image, per_group = _ints(0, channels, size, size), channels // GROUPS * size * size

    def finish(op: Any, normal: Any, given: Mapping[str, Any]) -> Any:
        scaled = op.Add(op.Mul(normal, given["gain"]), given["offset"])
        return op.Mul(scaled, op.Sigmoid(scaled))

    def instance(op: Any, given: Mapping[str, Any]) -> Any:
        grouped = op.Reshape(given["x"], _ints(0, GROUPS, -1))
        normal = op.InstanceNormalization(grouped, _floats(*[1.0] * GROUPS), _floats(*[0.0] * GROUPS), epsilon=EPS)
        return finish(op, op.Reshape(normal, image), given)

    def group(op: Any, given: Mapping[str, Any]) -> Any:
        ones, zeros = _floats(*[1.0] * channels), _floats(*[0.0] * channels)
        return finish(op, op.GroupNormalization(given["x"], ones, zeros, epsilon=EPS, num_groups=GROUPS), given)

    def layer(op: Any, given: Mapping[str, Any]) -> Any:
        grouped = op.Reshape(given["x"], _ints(0, GROUPS, -1))
        normal = op.LayerNormalization(grouped, _floats(*[1.0] * per_group), axis=-1, epsilon=EPS)
        return finish(op, op.Reshape(normal, image), given)

    def batch(op: Any, given: Mapping[str, Any]) -> Any:
        """Every channel of every row is a channel of one image, whose batch norm has the group's mean and variance."""
        grouped = op.Reshape(given["x"], _ints(0, GROUPS, -1))
        mean = op.ReduceMean(grouped, _ints(2), keepdims=1)
        square = op.Mul(op.ReduceSumSquare(grouped, _ints(2), keepdims=1), _floats(1 / per_group))
        variance = op.Sub(square, op.Mul(mean, mean))
        repeat = _ints(1, 1, channels // GROUPS)
        statistics = [op.Reshape(op.Expand(value, repeat), _ints(-1)) for value in (mean, variance)]
        gain, offset = (op.Reshape(given[name], _ints(-1)) for name in ("gain", "offset"))
        stacked = op.Reshape(given["x"], _ints(1, -1, size, size))
        scaled = op.BatchNormalization(stacked, gain, offset, *statistics, epsilon=EPS)
        scaled = op.Reshape(scaled, _ints(-1, channels, size, size))
        return op.Mul(scaled, op.Sigmoid(scaled))

    forms = {
        "InstanceNormalization": instance,
        "GroupNormalization (opset 21)": group,
        "LayerNormalization": layer,
        "BatchNormalization of measured statistics": batch,
    }
    shapes = {"x": (channels, size, size), "gain": (channels, 1, 1), "offset": (channels, 1, 1)}
    return Case(f"adaptive group norm and SiLU, {channels} channels, {size} px", shapes, forms, 21)


def embeddings(width: int, channels: Sequence[int]) -> Case:
    """The linear layers of all blocks over the time embedding [N, E]: gain and offset of every block."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(width, 2 * count, generator=generator).numpy() / width**0.5 for count in channels]

    def each(op: Any, given: Mapping[str, Any]) -> Any:
        silu = op.Mul(given["emb"], op.Sigmoid(given["emb"]))
        return op.Concat(*(op.MatMul(silu, _constant(weight)) for weight in weights), axis=1)

    def one(op: Any, given: Mapping[str, Any]) -> Any:
        product = op.MatMul(op.Mul(given["emb"], op.Sigmoid(given["emb"])), _constant(np.concatenate(weights, axis=1)))
        sizes = _ints(*(2 * count for count in channels))
        slices = op.Split(product, sizes, axis=1, outputs=len(channels))  # what the blocks take
        return op.Concat(*slices, axis=1)  # so that both forms end alike

    forms = {"a product per block": each, "one product for all": one}
    return Case(f"time-embedding layers of {len(channels)} blocks", {"emb": (width,)}, forms, 20)


def cases() -> list[Case]:
    """At the sizes of the 18 M-parameter network."""
    sizes = ((64, 64), (128, 32), (256, 8))
    blocks = [64] * 6 + [128] * 6 + [192] * 5 + [256] * 5
    return [
        attention(128, 32),
        attention(192, 16),
        attention(256, 8),
        *(adaptive_norm(channels, size) for channels, size in sizes),
        embeddings(256, blocks),
    ]


def build(case: Case, form: Form) -> bytes:
    """A serialised model of one form."""
    float32 = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    given = {
        name: onnx_ir.Value(name=name, type=float32, shape=onnx_ir.Shape(("batch", *shape)))
        for name, shape in case.inputs.items()
    }
    tape = Tape()
    y = form(_Op(tape), given)
    y.name, y.type = "y", float32
    graph = onnx_ir.Graph(
        list(given.values()),
        [y],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": case.opset, MICROSOFT: 1},
        name=case.name,
    )
    model = onnx_ir.Model(graph, ir_version=10 if case.opset < 23 else 11)
    return bytes(onnx_ir.to_proto(model).SerializeToString())


class _Op:
    """The tape's operators as methods, with arrays as constants."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        def add(*inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
            values = [self._value(value) if isinstance(value, np.ndarray) else value for value in inputs]
            if outputs == 1:
                return self._tape.op(op_type, values, attributes, domain=domain)
            return self._tape.op_multi_out(op_type, values, attributes, num_outputs=outputs, domain=domain)

        return add

    def _value(self, array: NDArray[Any]) -> Any:
        name = f"constant{len(self._tape.initializers)}"
        return self._tape.initializer(onnx_ir.tensor(array, name=name), name=name)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def _constant(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def compare(case: Case, rows: int, repeats: int) -> list[list[str]]:
    """A row of the table for each form."""
    generator = np.random.default_rng(0)
    inputs = {name: generator.standard_normal((rows, *shape), dtype=np.float32) for name, shape in case.inputs.items()}
    calls: dict[str, Callable[[], Any]] = {}
    for label, form in case.forms.items():
        session, _ = sessions.session(build(case, form))
        calls[label] = lambda session=session: session.run(None, inputs)[0]  # type: ignore[misc]
    first, *_ = case.forms
    expected = calls[first]()
    errors = {label: sessions.relative_error(call(), expected) for label, call in calls.items()}
    times = sessions.milliseconds(calls, repeats)
    return [
        [
            case.name if label == first else "",
            f"**{label}**" if label == first else label,
            f"{times[label]:.2f}",
            f"{times[first] / times[label]:.2f}x",
            "" if label == first else f"{errors[label]:.0e}",
        ]
        for label in case.forms
    ]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--rows", default=8, show_default=True)
@click.option("--repeats", default=15, show_default=True)
@click.option("--docs", type=click.Path(path_type=Path, dir_okay=False), help="Page to put the table into as well.")
def main(rows: int, repeats: int, docs: Path | None) -> None:
    """Command line; see the module's text."""
    header = ["computation", "form", "ms", "speed", "difference"]
    body = [row for case in cases() for row in compare(case, rows, repeats)]
    lines = [f"{rows} rows, {torch.get_num_threads()} threads.", "", *report.table(header, body)]
    if docs is not None:
        report.insert(docs, "fused kernels", lines)
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
