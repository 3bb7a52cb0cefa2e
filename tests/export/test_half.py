from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import tiny_engines
import torch
from onnx.reference import ReferenceEvaluator
from tiny_bundle import arrays

from id3pm.config import PAPER_BASE_64, PAPER_BASE_DIFFUSION, UNetConfig
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.errors import EngineError
from id3pm.export.engine_folder import ConversionJob
from id3pm.export.unet import emulate_half as rounded
from id3pm.export.unet import mixed_precision as half
from id3pm.export.unet import onnx_export as to_onnx
from id3pm.formats.bundle import Bundle, read_bundle, write_bundle
from id3pm.unet.model import UNet

HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
PRECISIONS = {"fp16": (onnx.TensorProto.FLOAT16, 2**-10), "bf16": (onnx.TensorProto.BFLOAT16, 2**-7)}


def converted(source: Path, folder: Path, precision: str) -> Path:
    """The graph in another precision, in a folder of its own."""
    model = onnx_ir.load(source)
    half.to_half(onnx_ir, model, precision)
    folder.mkdir(exist_ok=True)
    to_onnx.save(onnx_ir, model, folder / "model.onnx")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    return folder / "model.onnx"


def rounding(graph: Path) -> Path:
    (graph.parent / "rounded").mkdir()
    rounded.write_rounded(graph, graph.parent / "rounded" / "model.onnx")
    return graph.parent / "rounded" / "model.onnx"


def types_of(graph: onnx.GraphProto) -> dict[str, int]:
    """Element type by tensor."""
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


def run(graph: Path, inputs: EngineInputs) -> np.ndarray:
    output: np.ndarray = onnxruntime.InferenceSession(str(graph)).run(None, inputs)[0]
    return output


def random_inputs(config: UNetConfig, rows: int) -> EngineInputs:
    rng = np.random.default_rng(3)
    inputs = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in input_shapes(config, rows).items()}
    inputs["timesteps"] = np.linspace(0, 99, rows, dtype=np.float32)
    return inputs


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", ["base", "sr"])
def test_work_is_in_half_precision_and_what_is_delicate_in_fp32(
    exported: dict[str, Path], tmp_path: Path, stage: str, precision: str
) -> None:
    model = onnx.load(converted(exported[stage], tmp_path / "half", precision))
    dtype = PRECISIONS[precision][0]
    types = types_of(model.graph)
    makers = {output: node for node in model.graph.node for output in node.output}
    assert {types[value.name] for value in (*model.graph.input, *model.graph.output)} == {onnx.TensorProto.FLOAT}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        wanted = dtype if node.output[0] != "model_output" else onnx.TensorProto.FLOAT
        assert {types[name] for name in (*node.input, *node.output)} == {wanted}, node.name
    assert len(convolutions) > 10
    for node in model.graph.node:
        inputs = {types[name] for name in node.input if name}
        if node.op_type in ("InstanceNormalization", "Softmax", "Gemm", "Cos", "Sin"):
            assert inputs == {onnx.TensorProto.FLOAT}, node.name
        if node.op_type == "MatMul":
            assert inputs == {dtype}, node.name
        if node.op_type == "Cast":  # nothing is cast there and back, and nothing twice
            assert node.input[0] not in makers or makers[node.input[0]].op_type != "Cast"
    casts = [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    norms = sum(node.op_type == "InstanceNormalization" for node in model.graph.node)
    softmaxes = sum(node.op_type == "Softmax" for node in model.graph.node)
    embeddings = sum(node.op_type == "Split" and types[node.input[0]] == dtype for node in model.graph.node)
    assert len(casts) <= 2 * (norms + softmaxes) + embeddings + len(model.graph.input)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_of_convolutions_are_stored_in_half_precision(
    exported: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    model = onnx.load(converted(exported["base"], tmp_path / "half", precision))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [stored[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert sum(tensor.data_type in HALF for tensor in weights) == len(weights) - 1
    used = {name for node in model.graph.node for name in node.input}
    assert set(stored) <= used


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", ["base", "sr"])
def test_the_rounded_graph_computes_what_onnx_says(
    exported: dict[str, Path], tmp_path: Path, stage: str, precision: str
) -> None:
    """Held against ONNX's own evaluator, which computes every operator in the type of its operands."""
    config = tiny_engines.BASE if stage == "base" else tiny_engines.SR
    inputs = random_inputs(config, 2)
    graph = converted(exported[stage], tmp_path / "half", precision)
    reference = run(exported[stage], inputs)
    actual = run(rounding(graph), inputs)
    error = relative_error(actual, reference)
    step = PRECISIONS[precision][1]  # between two numbers, relative
    assert step / 10 < error < 5 * step
    if precision == "fp16":  # ONNX's evaluator has no bf16 convolution
        with np.errstate(over="ignore", invalid="ignore"):  # its sigmoid
            expected = ReferenceEvaluator(str(graph)).run(None, inputs)[0]
        assert relative_error(actual, expected) < 5 * step


def test_onnxruntime_does_not_round_fp16_on_the_cpu_but_the_rounded_graph_does(tmp_path: Path) -> None:
    """Why there is a rounded graph: 300^2 does not exist in fp16."""
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
        onnx.helper.make_node("Mul", ["h", "h"], ["square"]),
        onnx.helper.make_node("Sigmoid", ["square"], ["one"]),
        onnx.helper.make_node("Mul", ["square", "one"], ["product"]),
        onnx.helper.make_node("Cast", ["product"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    types = [value(name, onnx.TensorProto.FLOAT16, [1]) for name in ("h", "square", "one", "product")]
    ends = [value(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "square", ends[:1], ends[1:], value_info=types)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    x = {"x": np.array([300.0], dtype=np.float32)}
    assert np.isfinite(run(tmp_path / "model.onnx", x)).all()
    assert np.isinf(run(rounding(tmp_path / "model.onnx"), x)).all()


def edited(source: Path, change: Callable[[Any], None]) -> Any:
    model = onnx_ir.load(source)
    change(model)
    return model


def test_a_weight_outside_fp16_is_named(exported: dict[str, Path], tmp_path: Path) -> None:
    def enlarge(model: Any) -> None:
        weight = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
        weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * 1e6, name=weight.name)

    with pytest.raises(EngineError, match=r"input_blocks.0.0.weight has values up to .*, fp16 ends at 65504; .* bf16"):
        half.to_half(onnx_ir, edited(exported["base"], enlarge), "fp16")
    model = edited(exported["base"], enlarge)
    half.to_half(onnx_ir, model, "bf16")
    to_onnx.save(onnx_ir, model, tmp_path / "model.onnx")


def test_an_operator_without_a_rule_is_refused(exported: dict[str, Path]) -> None:
    def erf(model: Any) -> None:
        next(node for node in model.graph if node.op_type == "Sigmoid").op_type = "Erf"

    with pytest.raises(EngineError, match="Erf: no rule says in which precision"):
        half.to_half(onnx_ir, edited(exported["base"], erf), "fp16")


@pytest.mark.parametrize(
    ("limit", "files"), [(1000, ["model.onnx", "model.onnx.data"]), (2**28, ["model.onnx"])], ids=["still", "no longer"]
)
def test_external_weights_are_replaced(
    exported_bundle: Path,
    exported: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    files: list[str],
) -> None:
    monkeypatch.setattr(to_onnx, "EXTERNAL_DATA_BYTES", 1000)
    graph = tmp_path / "model.onnx"
    to_onnx.save(onnx_ir, onnx_ir.load(exported["base"]), graph)
    before = sum(file.stat().st_size for file in tmp_path.iterdir())
    monkeypatch.setattr(to_onnx, "EXTERNAL_DATA_BYTES", limit)
    spec: Any = type("Spec", (), {"precision": "fp16"})
    notes = half.convert(
        ConversionJob(graph=graph, bundle=exported_bundle, repository=tmp_path, spec=spec), lambda phase: None
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 0.85 * before
    inputs = random_inputs(tiny_engines.BASE, 1)
    assert relative_error(run(graph, inputs), run(exported["base"], inputs)) < 1e-2
    assert notes["in_half_precision"]["Conv"] > 10 and notes["in_fp32"]["Conv"] == 1


# Peaks over all time steps in the trained networks of the demo bundle; wider ones are given ten times as much.
TRAINED_CONVOLUTION, TRAINED_SCORE = 76.0, 29.0
MARGIN = 10.0
NARROW_DEEP = dataclasses.replace(
    PAPER_BASE_64, image_size=16, channel_mult=(1, 4), num_res_blocks=1, attention_resolutions=(8,), identity_dim=512
)


def trained_ranges(config: UNetConfig) -> UNet:
    """A random network whose convolutions reach `MARGIN` times the largest values of trained ones, attention twice."""
    unet = tiny_engines.random_unet(config)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("out_layers.3.weight", "proj_out.weight")):
                parameter *= 100.0
            if name.endswith("qkv.weight"):
                parameter *= 6.0
    return unet


@pytest.mark.slow
def test_fp16_has_no_infinities_at_the_papers_width(tmp_path: Path) -> None:
    """192 to 768 channels, three heads; fewer levels and blocks than the paper's, whose size is a slow test's."""
    unet = trained_ranges(NARROW_DEEP)
    description = read_bundle(Path(__file__).parents[2] / "bundles" / "demo")
    bundle: Bundle = dataclasses.replace(
        description,
        identity_dim=512,
        base=NARROW_DEEP,
        sr=tiny_engines.SR,
        base_diffusion=PAPER_BASE_DIFFUSION,
    )
    write_bundle(tmp_path / "bundle", bundle, arrays(unet), arrays(tiny_engines.random_unet(tiny_engines.SR)))
    to_onnx.export_onnx(tmp_path / "bundle", "base", tmp_path / "model.onnx")
    graph = rounding(converted(tmp_path / "model.onnx", tmp_path / "half", "fp16"))
    inputs = random_inputs(NARROW_DEEP, 5)
    inputs["timesteps"] = np.array([0, 250, 500, 750, 999], dtype=np.float32)
    peaks = {"Conv": 0.0, "MatMul": 0.0}
    watched = onnx_ir.load(graph)
    for node in watched.graph:
        if node.op_type in peaks:
            watched.graph.outputs.append(node.outputs[0])
    kinds = [node.op_type for node in watched.graph if node.op_type in peaks]
    onnx_ir.save(watched, tmp_path / "watched.onnx")
    actual, *inner = onnxruntime.InferenceSession(str(tmp_path / "watched.onnx")).run(None, inputs)
    for kind, values in zip(kinds, inner, strict=True):
        assert np.isfinite(values).all()
        peaks[kind] = max(peaks[kind], float(np.abs(values).max()))
    assert peaks["Conv"] > MARGIN * TRAINED_CONVOLUTION
    assert peaks["MatMul"] > 2 * TRAINED_SCORE
    with torch.inference_mode():
        expected = unet(**{name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
    assert np.isfinite(actual).all()
    for row in range(5):
        assert relative_error(actual[row], expected[row]) < 1e-2
