from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from id3pm.engines.base import load_engine
from id3pm.engines.manifest import Manifest, Target, engine_sha256, read_manifest, write_manifest
from id3pm.engines.openvino_engine import why_no_bf16
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import EngineError
from id3pm.export.engine_folder import ConversionJob, EngineSpec
from id3pm.export.parity import compare as parity
from id3pm.export.parity import report as parity_report
from id3pm.export.parity.thresholds import thresholds
from id3pm.export.unet import calibration
from id3pm.export.unet import quantize_cpu as quantize
from id3pm.formats.bundle import Stage

STAGES = {"base": "denoiser_64", "sr": "super_resolution"}


@pytest.fixture(scope="module")
def bundle(exported_bundle: Path) -> Path:
    return exported_bundle


@pytest.fixture(scope="module")
def repository(tiny_repository: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny engines in int8, calibrated on fewer rows; that of super-resolution has external weights."""
    repository = tmp_path_factory.mktemp("int8")
    for stage in STAGES.values():
        folder = Path(shutil.copytree(tiny_repository / stage / "1" / "engine", repository / stage / "1" / "engine"))
        write_manifest(folder, convert(folder, bundle, repository))
    return repository


def convert(folder: Path, bundle: Path, repository: Path, target: Target = "onnx-cpu") -> Manifest:
    manifest = dataclasses.replace(read_manifest(folder), target=target)
    fields = {field.name: getattr(manifest, field.name) for field in dataclasses.fields(EngineSpec)}
    spec = EngineSpec(**fields | {"precision": "int8"})
    graph = folder / manifest.file
    notes = quantize.convert(
        ConversionJob(graph=graph, bundle=bundle, repository=repository, spec=spec), lambda phase: None
    )
    limits = dataclasses.asdict(thresholds(target, "int8"))
    return dataclasses.replace(
        manifest,
        precision="int8",
        conversion=notes,
        file_sha256=engine_sha256(graph),
        parity=dataclasses.replace(manifest.parity, thresholds=limits),
    )


@pytest.mark.parametrize("stage", STAGES)
def test_an_int8_engine_passes_its_gate_and_says_how_it_was_made(repository: Path, bundle: Path, stage: Stage) -> None:
    folder = repository / STAGES[stage] / "1" / "engine"
    manifest = read_manifest(folder)
    engine = load_engine(folder)
    measured = parity.compare(TorchEngine(bundle, stage, max_batch=4), engine, manifest)
    assert parity_report.misses(measured) == []
    assert 1e-4 < max(entry["relative_error"] for entry in measured.forward)  # it is not the fp32 graph
    size = calibration.size_of(0)
    calls = 2 if stage == "base" else 1  # with and without the condition
    assert manifest.conversion["calibration_rows"] == size.images * size.steps * calls
    assert manifest.conversion["quantised"] > 0


def largest_weight(folder: Path) -> int:
    """Of all quantised convolutions."""
    constants = onnx.load(folder / "model.onnx").graph.initializer
    weights = [tensor for tensor in constants if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4]
    return max(int(np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int32)).max()) for tensor in weights)


@pytest.mark.skipif(why_no_bf16() is not None, reason=str(why_no_bf16()))
def test_openvino_runs_it_with_all_bits_of_the_weights(
    repository: Path, tiny_repository: Path, bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_repository / "denoiser_64" / "1" / "engine", tmp_path / "engine"))
    manifest = convert(folder, bundle, tmp_path, "openvino-cpu")
    write_manifest(folder, manifest)
    assert "of 8 bits" in manifest.conversion["method"] and largest_weight(folder) == 127
    assert largest_weight(repository / "denoiser_64" / "1" / "engine") == 64  # 7 bits, for processors without VNNI
    measured = parity.compare(TorchEngine(bundle, "base", max_batch=4), load_engine(folder), manifest)
    assert parity_report.misses(measured) == []
    assert measured.batch_invariant is True


def test_a_graph_without_convolutions_is_refused(repository: Path, bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(repository / "denoiser_64" / "1" / "engine", tmp_path / "engine"))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["output"])],
        "none",
        [value("x", onnx.TensorProto.FLOAT, ["rows", 3])],
        [value("output", onnx.TensorProto.FLOAT, ["rows", 3])],
    )
    onnx.save(onnx.helper.make_model(graph), folder / "model.onnx")
    with pytest.raises(EngineError, match="model.onnx has no convolution to quantise"):
        convert(folder, bundle, tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_wide_convolutions_are_quantised_per_channel(repository: Path, stage: str) -> None:
    folder = repository / STAGES[stage] / "1" / "engine"
    manifest, model = read_manifest(folder), onnx.load(folder / "model.onnx")
    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    plain, kernels = [], []
    for node in convolutions:
        weights = makers.get(node.input[1])
        if weights is None:
            plain.append(node.name)
            kernels.append(tuple(constants[node.input[1]].dims[2:]))
            continue
        assert weights.op_type == "DequantizeLinear"
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        quantised, scale = (constants[name] for name in weights.input[:2])
        assert quantised.data_type == onnx.TensorProto.INT8
        assert list(scale.dims) == [quantised.dims[0]]  # one scale per output channel
    assert sorted(plain) == manifest.conversion["in_floating_point"]
    assert sum(set(kernel) != {1} for kernel in kernels) == 2  # the first and the last
    assert len(convolutions) - len(plain) == manifest.conversion["quantised"]
    assert "DynamicQuantizeLinear" not in Counter(node.op_type for node in model.graph.node)


def test_the_gate_does_not_test_on_what_was_calibrated() -> None:
    assert calibration.FIRST_SEED > 100
