from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import tiny_engines

from id3pm.engines.inputs import input_shapes
from id3pm.errors import EngineError
from id3pm.export.engine_folder import ConversionJob
from id3pm.export.parity.thresholds import thresholds
from id3pm.export.tensorrt.build_plan import build_plan
from id3pm.export.unet import calibration, quantize_gpu
from id3pm.export.unet import emulate_half as rounded


@pytest.fixture(scope="module")
def converted(
    exported_bundle: Path, exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict[str, Any]]:
    """The tiny base network in fp32 and in int8, and what the manifest would say."""
    graph = tmp_path_factory.mktemp("int8") / "model.onnx"
    graph.write_bytes(exported["base"].read_bytes())
    spec: Any = type("Spec", (), {"stage": "base", "precision": "int8"})
    job = ConversionJob(graph=graph, bundle=exported_bundle, repository=graph.parent, spec=spec)
    with pytest.MonkeyPatch.context() as patch:  # fewer rows than a build takes
        patch.setattr(calibration, "size_of", lambda parameters: calibration.Size(images=1, steps=4, batch=2))
        return exported["base"], graph, quantize_gpu.convert(job, lambda phase: None)


def test_convolutions_are_symmetric_int8_and_the_rest_fp16(converted: tuple[Path, Path, dict[str, Any]]) -> None:
    _, path, notes = converted
    onnx.checker.check_model(path, full_check=True)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    quantised = 0
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not onnx.numpy_helper.to_array(constants[node.input[2]]).any()  # symmetric
            assert constants[node.input[1]].data_type == onnx.TensorProto.FLOAT16
        if node.op_type == "Conv" and node.input[1] in makers:
            weight = makers[node.input[1]]
            assert (weight.op_type, makers[node.input[0]].op_type) == ("DequantizeLinear", "DequantizeLinear")
            assert constants[weight.input[0]].data_type == onnx.TensorProto.INT8
            assert list(constants[weight.input[1]].dims) == [constants[weight.input[0]].dims[0]]  # one per channel
            assert constants[node.input[2]].data_type == onnx.TensorProto.FLOAT16  # the bias
            quantised += 1
    assert quantised == notes["quantised"] > 5
    assert notes["in_half_precision"]["Conv"] == quantised + len(notes["in_floating_point"]) - 1
    assert notes["calibration_rows"] == 8  # four steps, with and without the condition


def test_the_int8_graph_is_close_to_fp32(converted: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    before, path, _ = converted
    graph, how = rounded.evaluable(path, tmp_path, "int8")
    assert "rounded to fp16" in how
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal(s, dtype=np.float32) for n, s in input_shapes(tiny_engines.BASE, 2).items()}
    expected, actual = (onnxruntime.InferenceSession(str(file)).run(None, inputs)[0] for file in (before, graph))
    error = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
    assert 1e-3 < error < thresholds("tensorrt", "int8").relative_error


@pytest.mark.parametrize("gpu", ["sm86", "sm89", "sm120"])
def test_int8_plans_are_built(converted: tuple[Path, Path, dict[str, Any]], tmp_path: Path, gpu: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed: the extra tensorrt")
    _, path, notes = converted
    manifest = tiny_engines.manifest_of(tiny_engines.BASE, path, max_batch=1)
    layers = build_plan(path, tmp_path / "model.plan", dataclasses.replace(manifest, precision="int8", device=gpu))
    assert layers["CONVOLUTION HALF"] == notes["in_half_precision"]["Conv"]
    assert layers["QUANTIZE INT8"] >= notes["quantised"]
    with pytest.raises(EngineError, match="the network is not fp16: .* tensors are quantised"):
        build_plan(path, tmp_path / "other.plan", dataclasses.replace(manifest, precision="fp16", device=gpu))


def test_a_scale_that_fp16_cannot_hold_is_refused(converted: tuple[Path, Path, dict[str, Any]]) -> None:
    model = onnx_ir.load(converted[1])
    node = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    node.inputs[1].const_value = onnx_ir.tensor(np.float32(1e-6))
    with pytest.raises(EngineError, match="has a scale of 1e-06, fp16 holds 6.1e-05 and more"):
        quantize_gpu._require_scales(model)
