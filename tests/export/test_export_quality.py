from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import tiny_engines
import torch

from id3pm.config import PAPER_BASE_64, PAPER_SR_256, UNetConfig
from id3pm.engines.inputs import input_shapes
from id3pm.export.unet import onnx_export as to_onnx
from id3pm.export.unet import winograd
from id3pm.export.unet.onnx_modules import REWRITES, rewrite
from id3pm.formats.bundle import STAGES
from id3pm.unet.layers import AttentionBlock, ResBlock
from id3pm.unet.model import UNet

ATTENTION_BLOCKS, RES_BLOCKS = (
    sum(isinstance(module, block) for module in UNet(tiny_engines.BASE).modules())
    for block in (AttentionBlock, ResBlock)
)
UPDOWN = dataclasses.replace(tiny_engines.BASE, resblock_updown=True, use_new_attention_order=True)


def nodes(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.fixture
def graph(exported: dict[str, Path]) -> Any:
    """The graph of the tiny base network."""
    return onnx_ir.load(exported["base"])


@pytest.mark.parametrize("stage", STAGES)
def test_no_shape_is_computed(exported: dict[str, Path], stage: str) -> None:
    graph = onnx_ir.load(exported[stage])
    clutter = {"Shape", "Size", "Gather", "Squeeze", "Expand", "Cast", "ConstantOfShape", "Range", "Where"}
    assert not clutter & set(nodes(graph))
    for node in graph.graph:
        if node.op_type in ("Reshape", "Resize", "Split"):  # sizes are constants; a Reshape to 0 keeps the batch
            assert all(value is None or value.const_value is not None for value in node.inputs[1:])


def test_a_group_norm_is_one_kernel(graph: Any) -> None:
    count = nodes(graph)
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in UNet(tiny_engines.BASE).modules())
    assert count["InstanceNormalization"] == norms
    assert not {"GroupNormalization", "ReduceMean", "Sqrt", "Pow"} & set(count)


def test_silu_is_one_kernel_when_it_runs(graph: Any, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(onnx_ir.to_proto(graph).SerializeToString(), options)
    running = Counter(node.op_type for node in onnx_ir.load(tmp_path / "optimised.onnx").graph)
    assert running["QuickGelu"] == nodes(graph)["Sigmoid"] > 0 == running["Sigmoid"]
    assert running["FusedMatMul"] == 2 * ATTENTION_BLOCKS  # transpositions are arguments of the products


@pytest.mark.parametrize("name", REWRITES)
@pytest.mark.parametrize("config", [tiny_engines.BASE, UPDOWN, tiny_engines.SR], ids=["legacy", "new", "sr"])
def test_a_rewritten_network_is_the_same_function(config: UNetConfig, name: str) -> None:
    original = tiny_engines.random_unet(config)
    inputs = {key: torch.randn(shape) for key, shape in input_shapes(config, 3).items()}
    rewritten = copy.deepcopy(original)
    rewrite(rewritten, [name])
    with torch.inference_mode():
        expected, actual = original(**inputs), rewritten(**inputs)
    changed = {type(module) for module in rewritten.modules()} - {type(module) for module in original.modules()}
    assert changed  # every network has attention in its middle block
    assert torch.linalg.norm(actual - expected) < 2e-6 * torch.linalg.norm(expected)


def test_an_unknown_rewrite_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown rewrite fast; there are attention, adaptive_norm"):
        rewrite(tiny_engines.random_unet(tiny_engines.SR), ["fast"])


def test_attention_moves_only_its_result(graph: Any) -> None:
    count = nodes(graph)
    softmaxes = [node for node in graph.graph if node.op_type == "Softmax"]
    assert len(softmaxes) == ATTENTION_BLOCKS
    for softmax in softmaxes:
        scores, product = softmax.inputs[0].producer(), softmax.outputs[0].uses()[0].node
        assert (scores.op_type, product.op_type) == ("MatMul", "MatMul")
        # q and v enter transposed, which runtimes fuse into the products; k enters as the convolution wrote it
        assert [value.producer().op_type for value in scores.inputs] == ["Transpose", "Split"]
        assert [value.producer().op_type for value in product.inputs] == ["Softmax", "Transpose"]
    assert count["Transpose"] == 3 * len(softmaxes)


def test_an_adaptive_norm_is_one_scale_and_one_shift(graph: Any) -> None:
    splits = [node for node in graph.graph if node.op_type == "Split" and node.inputs[0].shape[2:] == (1, 1)]
    assert len(splits) == RES_BLOCKS  # scale and shift as the linear layer gives them
    for split in splits:
        gain, offset = (value.uses()[0].node for value in split.outputs)
        assert (gain.op_type, offset.op_type) == ("Mul", "Add")
        assert gain.outputs[0] in offset.inputs


def test_frequencies_of_the_time_embedding_are_constants(graph: Any) -> None:
    cos = next(node for node in graph.graph if node.op_type == "Cos")
    product = cos.inputs[0].producer()
    assert product.op_type == "Mul"
    assert any(value.const_value is not None and value.const_value.size == 16 for value in product.inputs)


@pytest.mark.parametrize("tile", [winograd.F2, winograd.F4], ids=["F2", "F4"])
def test_the_transforms_convolve(tile: winograd.Tile) -> None:
    """Lavin and Gray (2016), eq. 8: A^T ((G g G^T) * (B^T d B)) A is the convolution of the tile d with g."""
    generator = np.random.default_rng(0)
    size = tile.size + 2
    d, g = generator.standard_normal((size, size)), generator.standard_normal((3, 3))
    product = (tile.kernel @ g @ tile.kernel.T) * (tile.input @ d @ tile.input.T)
    expected = [[np.sum(d[i : i + 3, j : j + 3] * g) for j in range(tile.size)] for i in range(tile.size)]
    assert np.allclose(tile.output @ product @ tile.output.T, expected, atol=1e-12)


def convolution(channels: int, out_channels: int, size: int, **attributes: Any) -> Any:
    """A model of one convolution with random weights."""
    generator = torch.Generator().manual_seed(1)
    kernel = attributes.get("kernel_shape", [3, 3])[0]
    shape = (out_channels, channels, kernel, kernel)
    values = {"w": torch.randn(shape, generator=generator) / (kernel * channels**0.5), "b": torch.randn(out_channels)}
    float32 = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    x = onnx_ir.Value(name="x", type=float32, shape=onnx_ir.Shape(("batch", channels, size, size)))
    constants = [
        onnx_ir.Value(name=name, type=float32, shape=onnx_ir.Shape(value.shape), const_value=onnx_ir.tensor(value))
        for name, value in values.items()
    ]
    node = onnx_ir.node("Conv", [x, *constants], attributes={"pads": [1, 1, 1, 1], **attributes})
    out = size // attributes.get("strides", [1])[0] - 2 * (kernel == 1 and attributes["pads"] == [1, 1, 1, 1])
    node.outputs[0].name, node.outputs[0].type = "y", float32
    node.outputs[0].shape = onnx_ir.Shape(("batch", out_channels, out, out))
    graph = onnx_ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports={"": 20}, name="g")
    return onnx_ir.Model(graph, ir_version=10)


def run(model: Any, x: Any) -> Any:
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize(("channels", "out_channels", "size"), [(192, 128, 16), (320, 256, 16)], ids=["F4", "F2"])
def test_a_wide_convolution_gives_the_same_by_matrix_products(channels: int, out_channels: int, size: int) -> None:
    model = convolution(channels, out_channels, size)
    x = np.random.default_rng(2).standard_normal((3, channels, size, size), dtype=np.float32)
    expected = run(model, x)
    assert winograd.to_winograd(onnx_ir, model) == 1
    assert nodes(model)["MatMul"] == 2 and set(model.graph.initializers) & {"w", "b"} == set()
    actual = run(model, x)
    assert 0 < np.linalg.norm(actual - expected) < 1e-5 * np.linalg.norm(expected)
    for row in range(3):
        assert np.array_equal(run(model, x[row : row + 1]), actual[row : row + 1])


@pytest.mark.parametrize(
    ("channels", "size", "attributes"),
    [
        (64, 32, {}),  # too narrow
        (768, 8, {}),  # too few tiles
        (192, 16, {"strides": [2, 2]}),
        (192, 16, {"kernel_shape": [1, 1], "pads": [0, 0, 0, 0]}),
        (192, 6, {}),
    ],
    ids=str,
)
def test_other_convolutions_stay(channels: int, size: int, attributes: dict[str, Any]) -> None:
    model = convolution(channels, channels, size, **attributes)
    assert winograd.to_winograd(onnx_ir, model) == 0
    assert nodes(model) == {"Conv": 1} and set(model.graph.initializers) == {"w", "b"}


def test_a_weight_that_others_use_is_kept() -> None:
    model = convolution(192, 192, 16)
    weight = model.graph.initializers["w"]
    copied = onnx_ir.node("Identity", [weight])
    copied.outputs[0].name, copied.outputs[0].type, copied.outputs[0].shape = "copy", weight.type, weight.shape
    model.graph.append(copied)
    model.graph.outputs.append(copied.outputs[0])
    assert winograd.to_winograd(onnx_ir, model) == 1
    assert set(model.graph.initializers) & {"w", "b"} == {"w"}


def test_a_written_graph_holds_the_transformed_weights(tmp_path: Path) -> None:
    model = convolution(192, 192, 16)
    x = np.random.default_rng(2).standard_normal((1, 192, 16, 16), dtype=np.float32)
    expected = run(model, x)
    winograd.to_winograd(onnx_ir, model)
    to_onnx.save(onnx_ir, model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert np.allclose(session.run(None, {"x": x})[0], expected, atol=1e-4)
    assert (tmp_path / "model.onnx").stat().st_size > 4 * 36 * 192 * 192


def test_the_papers_widths_take_matrix_products_where_they_pay() -> None:
    assert winograd.choose_tile(PAPER_BASE_64.num_channels, PAPER_BASE_64.num_channels, 64) is winograd.F4
    assert winograd.choose_tile(576, 576, 16) is winograd.F2
    assert winograd.choose_tile(768, 768, 8) is None
    assert winograd.choose_tile(PAPER_SR_256.in_channels, PAPER_SR_256.num_channels, 256) is None
