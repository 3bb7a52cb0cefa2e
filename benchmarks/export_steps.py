"""Effect of each export step: nodes, time and error of the graph before and after, in one run.

python benchmarks/export_steps.py [--rows 8] [--repeats 7]
python benchmarks/export_steps.py --convolutions     # where Winograd tiles pay, convolution by convolution
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))

import networks
import report
import sessions
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_engine import TorchEngine
from id3pm.export.unet import winograd
from id3pm.export.unet.onnx_export import export_onnx

STEPS: Mapping[str, dict[str, Any]] = {
    "as PyTorch exports it": {"operators": False, "rewrites": ()},
    "+ constant shapes, one kernel per group norm": {"rewrites": ()},
    "+ attention without transposes": {"rewrites": ("attention",)},
    "+ adaptive norms folded": {"rewrites": ("attention", "adaptive_norm")},
    "+ Winograd convolutions": {"winograd": True},
}
CLUTTER = ("Shape", "Gather", "Squeeze", "Expand", "Cast")  # computations on sizes
CONVOLUTIONS = [(64, 64, 64), (192, 192, 64), (384, 192, 64), (64, 128, 32), (128, 128, 32), (384, 384, 32)] + [
    (192, 192, 16), (448, 256, 16), (576, 576, 16), (256, 256, 8), (512, 512, 8), (768, 768, 8)
]  # fmt: skip
console = Console(highlight=False)


@click.command()
@click.option("--rows", default=8, show_default=True)
@click.option("--repeats", default=7, show_default=True)
@click.option("--convolutions", "only_convolutions", is_flag=True)
@click.option("--docs", type=click.Path(path_type=Path, dir_okay=False), help="Page to put the table into as well.")
def main(rows: int, repeats: int, only_convolutions: bool, docs: Path | None) -> None:
    """Command line; see the module's text."""
    lines = convolutions(4, repeats) if only_convolutions else steps(rows, repeats)
    if docs is not None:
        report.insert(docs, "convolutions" if only_convolutions else "export steps", lines)
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def steps(rows: int, repeats: int) -> list[str]:
    """The 18 M-parameter network, exported with more and more steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks.write_random_bundle(folder / "bundle", "18m", networks.SMALL_64)
        reference = TorchEngine(folder / "bundle", "base")
        generator = np.random.default_rng(0)
        shapes = input_shapes(reference.config, rows)
        inputs = {key: generator.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}
        inputs["timesteps"] = np.linspace(0, 999, rows, dtype=np.float32)
        calls: dict[str, Callable[[], Any]] = {"PyTorch eager": lambda: reference.run(inputs)}
        nodes, optimised, shapes = {}, {}, {}
        for number, (label, options) in enumerate(STEPS.items()):
            path = folder / f"{number}.onnx"
            nodes[label] = export_onnx(folder / "bundle", "base", path, **options)
            shapes[label] = sum(node.op_type in CLUTTER for node in onnx_ir.load(path).graph)
            session, optimised[label] = sessions.session(str(path), folder / "optimised.onnx")
            calls[label] = lambda session=session: session.run(None, inputs)[0]  # type: ignore[misc]
        expected = calls["PyTorch eager"]()
        errors = {label: sessions.relative_error(calls[label](), expected) for label in STEPS}
        times = sessions.milliseconds(calls, repeats)
    eager = times["PyTorch eager"]
    body = [
        [
            label,
            f"{nodes[label].nodes_before} -> {nodes[label].nodes_after}",
            str(shapes[label]),
            str(sum(optimised[label].values())),
            str(optimised[label]["Transpose"]),
            str(optimised[label]["ReorderInput"] + optimised[label]["ReorderOutput"]),
            f"{times[label]:.1f}",
            f"{eager / times[label]:.2f}x",
            f"{errors[label]:.1e}",
        ]
        for label in STEPS
    ]
    header = [
        "step",
        "nodes, simplified",
        "on shapes",
        "as they run",
        "transposes",
        "layout changes",
        "ms",
        "speed",
        "relative error",
    ]
    return [f"{rows} rows, PyTorch eager {eager:.1f} ms, {torch.get_num_threads()} threads", ""] + report.table(
        header, body
    )


def convolutions(rows: int, repeats: int) -> list[str]:
    """Single 3x3 convolutions: the direct kernel against both tiles."""
    body = []
    for channels, out_channels, size in CONVOLUTIONS:
        x = np.random.default_rng(0).standard_normal((rows, channels, size, size), dtype=np.float32)
        calls: dict[str, Callable[[], Any]] = {}
        for label, tile in (("direct", None), ("F2", winograd.F2), ("F4", winograd.F4)):
            model = _convolution(channels, out_channels, size, tile)
            session, _ = sessions.session(onnx_ir.to_proto(model).SerializeToString())
            calls[label] = lambda session=session, x=x: session.run(None, {"x": x})[0]  # type: ignore[misc]
        direct = calls["direct"]()
        times = sessions.milliseconds(calls, repeats)
        chosen = winograd.choose_tile(channels, out_channels, size)
        cells = [f"{channels} -> {out_channels}, {size} px", f"{times['direct']:.2f}"]
        cells += [
            f"{times['direct'] / times[key]:.2f}x, {sessions.relative_error(calls[key](), direct):.0e}"
            for key in ("F2", "F4")
        ]
        body.append([*cells, "direct" if chosen is None else f"F{chosen.size}"])
    header = ["convolution", "direct, ms", "m = 2: speed, error", "m = 4: speed, error", "chosen"]
    return [f"{rows} rows", "", *report.table(header, body)]


def _convolution(channels: int, out_channels: int, size: int, tile: winograd.Tile | None) -> Any:
    float32 = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    generator = torch.Generator().manual_seed(0)  # the same weights for every tile
    weight = torch.randn(out_channels, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    tensors = {"w": weight, "b": torch.randn(out_channels, generator=generator)}
    constants = [
        onnx_ir.Value(name=name, type=float32, shape=onnx_ir.Shape(value.shape), const_value=onnx_ir.tensor(value))
        for name, value in tensors.items()
    ]
    x = onnx_ir.Value(name="x", type=float32, shape=onnx_ir.Shape(("batch", channels, size, size)))
    node = onnx_ir.node("Conv", [x, *constants], attributes={"pads": [1, 1, 1, 1]})
    node.outputs[0].name, node.outputs[0].type = "y", float32
    node.outputs[0].shape = onnx_ir.Shape(("batch", out_channels, size, size))
    graph = onnx_ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports={"": 20}, name="g")
    if tile is not None:
        winograd.replace_convolution(onnx_ir, graph, node, tile)
    return onnx_ir.Model(graph, ir_version=10)


if __name__ == "__main__":
    main()
