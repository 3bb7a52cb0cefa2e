"""Plans built for GPUs that are not here, by the real tensorrt_rtx. None of them is executed."""

from __future__ import annotations

import dataclasses
import types
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import pytest
import tiny_engines

from id3pm.engines.buckets import Buckets
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.errors import EngineError
from id3pm.export.tensorrt import build_plan as to_tensorrt
from id3pm.export.tensorrt.build_plan import build_plan, require_gpu, timing_cache
from id3pm.export.tensorrt.check_precision import HALF, check_layers
from id3pm.export.unet import mixed_precision as half
from id3pm.export.unet import onnx_export as to_onnx
from id3pm.formats.bundle import STAGES, Stage, read_bundle

DEMO = Path(__file__).parents[2] / "bundles" / "demo"
GPUS = ("sm86", "sm89", "sm120")


@pytest.fixture
def tensorrt_rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="not installed: the extra tensorrt")


def manifest_for(stage: Stage, precision: str, gpu: str, graph: Path) -> Manifest:
    """Of an engine of the tiny bundle; the demo bundle's graphs are not beside a manifest."""
    if graph.name == "model.onnx":
        unet = tiny_engines.BASE if stage == "base" else tiny_engines.SR
    else:
        bundle = read_bundle(DEMO)
        unet = bundle.base if stage == "base" else bundle.sr
    made = tiny_engines.manifest_of(unet, graph, max_batch=1)
    return dataclasses.replace(made, stage=stage, precision=precision, device=gpu)


@pytest.mark.parametrize(
    ("stage", "precision", "gpu"),
    [("base", "fp16", "sm86"), ("base", "fp16", "sm120"), ("base", "bf16", "sm89"), ("sr", "fp16", "sm89")],
)
def test_engines_are_built_for_geforce_gpus_with_the_types_they_promise(
    exported: dict[str, Path], tmp_path: Path, tensorrt_rtx: Any, stage: Stage, precision: str, gpu: str
) -> None:
    check_plan(exported[stage], tmp_path, stage, precision, gpu)


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS)
def test_so_is_the_demo_bundle(tmp_path: Path, tensorrt_rtx: Any, gpu: str) -> None:
    for stage in STAGES:
        folder = tmp_path / stage
        folder.mkdir()
        to_onnx.export_onnx(DEMO, stage, folder / "fp32.onnx")
        for precision in half.OPSETS:
            check_plan(folder / "fp32.onnx", folder, stage, precision, gpu)


def check_plan(fp32: Path, folder: Path, stage: Stage, precision: str, gpu: str) -> None:
    """Builds a plan of a graph in half precision, and looks at its layers."""
    graph, plan = folder / "model.onnx", folder / "model.plan"
    model = onnx_ir.load(fp32)
    half.to_half(onnx_ir, model, precision)
    to_onnx.save(onnx_ir, model, graph)
    layers = build_plan(graph, plan, manifest_for(stage, precision, gpu, fp32))
    assert graph.stat().st_size < plan.stat().st_size < 3 * graph.stat().st_size + 2**24
    operators = Counter(node.op_type for node in onnx.load(graph).graph.node)
    assert layers == {
        f"CONVOLUTION {HALF[precision]}": operators["Conv"] - 1,
        "CONVOLUTION FLOAT": 1,
        f"MATRIX_MULTIPLY {HALF[precision]}": operators["MatMul"],
        "MATRIX_MULTIPLY FLOAT": operators["Gemm"],
        "NORMALIZATION FLOAT": operators["InstanceNormalization"],
        "SOFTMAX FLOAT": operators["Softmax"],
        "UNARY FLOAT": 2,
    }


@pytest.mark.parametrize(("buckets", "profiles"), [("fast", 2), ("exact", 1)])
def test_every_bucket_is_a_profile_of_exactly_its_size(
    base_folder: Path, tmp_path: Path, tensorrt_rtx: Any, buckets: Buckets, profiles: int
) -> None:
    manifest = dataclasses.replace(read_manifest(base_folder), device="sm86", max_batch=2, buckets=buckets)
    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    config = to_tensorrt._config(tensorrt_rtx, builder, manifest)
    assert config.num_optimization_profiles == profiles
    assert not config.get_flag(tensorrt_rtx.BuilderFlag.TF32)
    assert config.get_compute_capability(0) == tensorrt_rtx.ComputeCapability.SM86
    assert build_plan(base_folder / "model.onnx", tmp_path / "model.plan", manifest)["SOFTMAX FLOAT"] > 0
    weights = sum(parameter.numel() for parameter in tiny_engines.random_unet(tiny_engines.BASE).parameters()) * 4
    assert (tmp_path / "model.plan").stat().st_size > weights


def parsed(trt: Any, graph: Path) -> tuple[Any, ...]:
    """A network, and what must live as long as it."""
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse_from_file(str(graph))
    return network, builder, parser


def test_a_network_of_another_precision_is_refused(base_folder: Path, tmp_path: Path, tensorrt_rtx: Any) -> None:
    manifest = dataclasses.replace(read_manifest(base_folder), device="sm86", precision="fp16")
    with pytest.raises(EngineError, match=r"the network is not fp16: .* \(CONVOLUTION\) is FLOAT, not HALF"):
        build_plan(base_folder / "model.onnx", tmp_path / "model.plan", manifest)
    assert not (tmp_path / "model.plan").exists()


@pytest.mark.parametrize(
    ("operator", "kind"),
    [("Softmax", "SOFTMAX"), ("InstanceNormalization", "NORMALIZATION"), ("Gemm", "MATRIX_MULTIPLY")],
)
def test_a_delicate_layer_in_half_precision_is_refused(
    exported: dict[str, Path],
    tmp_path: Path,
    tensorrt_rtx: Any,
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    kind: str,
) -> None:
    monkeypatch.setattr(half, "FULL", half.FULL - {operator})
    monkeypatch.setattr(half, "FOLLOWS", half.FOLLOWS | {operator})
    model = onnx_ir.load(exported["base"])
    half.to_half(onnx_ir, model, "fp16")
    to_onnx.save(onnx_ir, model, tmp_path / "model.onnx")
    network = parsed(tensorrt_rtx, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match=rf"\({kind}\) is HALF, not FLOAT"):
        check_layers(network[0], "fp16")


def test_a_graph_that_is_none_is_refused(base_folder: Path, tmp_path: Path, tensorrt_rtx: Any) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    manifest = dataclasses.replace(read_manifest(base_folder), device="sm86")
    with pytest.raises(EngineError, match="cannot parse the graph"):
        build_plan(tmp_path / "model.onnx", tmp_path / "model.plan", manifest)
    assert not (tmp_path / "model.plan").exists()


def test_an_unknown_gpu_is_refused_with_those_that_are_known(tensorrt_rtx: Any) -> None:
    with pytest.raises(EngineError, match=r"--gpu sm42: tensorrt_rtx .* builds for .*sm86"):
        require_gpu("sm42")
    for gpu in GPUS:
        require_gpu(gpu)


class FakeConfig:
    """The part of `tensorrt.IBuilderConfig` that keeps kernel times; times of another GPU do not match."""

    def __init__(self) -> None:
        self.times = b""

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, times: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if times == b"of another GPU":
            return False
        self.times = times
        return True


@pytest.mark.parametrize(("content", "used"), [(None, b""), (b"times", b"times"), (b"of another GPU", b"")])
def test_times_of_kernels_are_read_where_they_match(tmp_path: Path, content: bytes | None, used: bytes) -> None:
    cache, config = tmp_path / "sm90.timing_cache", FakeConfig()
    if content is not None:
        cache.write_bytes(content)
    to_tensorrt._load_times(config, cache)
    assert config.times == used


def test_only_the_module_that_measures_kernels_keeps_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_tensorrt, "tensorrt_module", lambda: "tensorrt")
    assert timing_cache(tmp_path, "sm90") == tmp_path / "sm90.timing_cache"
    monkeypatch.setattr(to_tensorrt, "tensorrt_module", lambda: "tensorrt_rtx")
    assert timing_cache(tmp_path, "sm86") is None


def test_the_data_centre_module_builds_for_the_gpu_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tensorrt")
    module.__version__ = "10.13"  # type: ignore[attr-defined]
    monkeypatch.setattr(to_tensorrt.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(to_tensorrt, "tensorrt_module", lambda: "tensorrt")
    monkeypatch.setattr(to_tensorrt, "gpu_here", lambda: "sm90")
    require_gpu("sm90")
    with pytest.raises(EngineError, match=r"--gpu sm86: tensorrt builds for the GPU of this machine only \(sm90\)"):
        require_gpu("sm86")
