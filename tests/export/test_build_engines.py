from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from tiny_bundle import write_tiny_bundle

from id3pm.engines.base import load_engine
from id3pm.engines.inputs import input_shapes
from id3pm.engines.manifest import engine_sha256, read_manifest
from id3pm.engines.openvino_engine import why_no_bf16
from id3pm.engines.torch_engine import TorchEngine
from id3pm.export import build as build_engines
from id3pm.export import targets
from id3pm.export.unet import onnx_export as to_onnx
from id3pm.formats.bundle import load_weights, read_bundle, weights_hash, write_bundle

ROOT = Path(__file__).parents[2]
ENGINES = ("denoiser_64/1/engine", "super_resolution/1/engine")


def build(bundle: Path, repository: Path, *options: str) -> Result:
    arguments = ["--bundle", str(bundle), "--repository", str(repository), "--max-batch", "4", *options]
    return CliRunner().invoke(build_engines.main, arguments)


def contents(repository: Path) -> dict[str, str]:
    """Hash by relative path of everything, hidden files and left-over folders included."""
    return {
        str(path.relative_to(repository)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in repository.rglob("*")
    }


@pytest.fixture
def bundle(exported_bundle: Path) -> Path:
    return exported_bundle


@pytest.fixture
def repository(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "repository"))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_manifest_says_what_was_built_and_proves_it(built: Path, bundle: Path, engine: str) -> None:
    manifest = read_manifest(built / engine)
    description = read_bundle(bundle)
    assert (manifest.target, manifest.precision, manifest.max_batch, manifest.device) == ("onnx-cpu", "fp32", 4, "cpu")
    assert manifest.bundle.weights_sha256 == weights_hash(bundle, manifest.stage)
    assert manifest.unet == (description.base if manifest.stage == "base" else description.sr)
    assert manifest.sampling == (description.sampling if manifest.stage == "base" else description.sr_sampling)
    assert (manifest.id_vector_model, manifest.attribute_set) == ("sface", 1)
    graph = onnx.load(built / engine / manifest.file)
    assert graph.opset_import[0].version == manifest.opset
    assert len(graph.graph.node) == manifest.onnx.nodes_after <= manifest.onnx.nodes_before  # too narrow for Winograd
    assert {"torch", "onnx", "onnxruntime", "onnxslim", "onnxscript", "id3pm", "recipe"} <= set(manifest.versions)
    assert {row["timestep"] for row in manifest.parity.forward} == {0, 25, 50, 75, 99}  # T = 100
    kinds = {"conditional", "null"} if manifest.stage == "base" else {""}
    assert {row["condition"] for row in manifest.parity.forward} == kinds
    assert 0 < max(row["relative_error"] for row in manifest.parity.forward) < 1e-4
    assert manifest.parity.trajectory["psnr_db"] > 60
    assert manifest.parity.batch_invariant is True


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_batch_axis_is_computed_at_run_time(built: Path, engine: str) -> None:
    graph = onnx.load(built / engine / "model.onnx").graph
    assert "Shape" not in {node.op_type for node in graph.node}
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
    }
    config = read_manifest(built / engine).unet
    assert shapes == {name: ["batch", *shape[1:]] for name, shape in input_shapes(config, 1).items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_has_the_same_bits_in_any_batch(built: Path, engine: str) -> None:
    loaded = load_engine(built / engine)
    generator = np.random.default_rng(0)
    inputs = {
        name: generator.standard_normal(shape, dtype=np.float32)
        for name, shape in input_shapes(loaded.config, 4).items()
    }
    inputs["timesteps"] = np.array([99, 0, 50, 1], dtype=np.float32)
    together = loaded.run(inputs)
    for order in ([0], [3], [2, 1], [3, 0, 2], [1, 1, 1, 1], [3, 2, 1, 0]):
        some = loaded.run({name: np.ascontiguousarray(array[order]) for name, array in inputs.items()})
        assert np.array_equal(some, together[order])


def test_a_second_run_builds_nothing_and_does_not_import_torch(bundle: Path, built: Path, tmp_path: Path) -> None:
    before = contents(built)
    command = [sys.executable, "-X", "importtime", str(ROOT / "export" / "build_engines.py")]
    command += ["--bundle", str(bundle), "--repository", str(built), "--max-batch", "4", "--stage", "base"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as if installed; the script finds its own neighbours
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "up to date" in done.stdout and "building" not in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "id3pm.formats.bundle" in imported and not {"torch", "onnx", "onnxruntime"} & imported
    assert contents(built) == before


def test_changed_weights_are_built_anew(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "EXTERNAL_DATA_BYTES", 100_000)  # and so large that they lie beside the graph
    before = contents(repository)
    bundle = tmp_path / "bundle"
    write_tiny_bundle(bundle, seed=1)
    result = build(bundle, repository, "--stage", "sr")
    assert result.exit_code == 0 and "building (other bundle)" in result.output, result.output
    after = contents(repository)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == {f"{ENGINES[1]}/{name}" for name in ("model.onnx", "model.onnx.data", "manifest.json")}
    manifest = read_manifest(repository / ENGINES[1])
    assert manifest.bundle.weights_sha256 == weights_hash(bundle, "sr")
    engine, reference = load_engine(repository / ENGINES[1]), TorchEngine(bundle, "sr")
    inputs = {name: np.ones(shape, dtype=np.float32) for name, shape in input_shapes(manifest.unet, 1).items()}
    assert np.allclose(engine.run(inputs), reference.run(inputs), rtol=1e-4, atol=1e-5)


def exporter_of(built: Path, stage: str) -> Callable[..., to_onnx.OnnxGraph]:
    """In the place of the exporter, seconds faster: writes the graph that it wrote before."""
    folder = built / ENGINES[stage == "sr"]

    def export(bundle: Path, stage: str, path: Path, report: to_onnx.Report, **_: object) -> to_onnx.OnnxGraph:
        shutil.copy(folder / "model.onnx", path)
        manifest = read_manifest(folder)
        return to_onnx.OnnxGraph(opset=manifest.opset, **dataclasses.asdict(manifest.onnx))

    return export


def perturbed(export: Callable[..., to_onnx.OnnxGraph]) -> Callable[..., to_onnx.OnnxGraph]:
    """The exporter, but one weight of one convolution comes out a little off."""

    def wrapper(bundle: Path, stage: str, path: Path, report: to_onnx.Report, **_: object) -> to_onnx.OnnxGraph:
        graph = export(bundle, stage, path, report)
        model = onnx.load(path)
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(weight).copy()
        values.flat[7] += 0.01 * np.abs(values).max()
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)
        return graph

    return wrapper


def test_a_wrong_engine_is_refused_and_the_old_one_stays(
    bundle: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "export_onnx", perturbed(exporter_of(repository, "sr")))
    before = contents(repository)
    result = build(bundle, repository, "--stage", "sr", "--force")
    assert result.exit_code == 1
    assert "MISS" in result.output and "super_resolution is not equal to the PyTorch model" in result.output
    assert "installed\n" not in result.output.replace("not installed", "")
    assert contents(repository) == before


def test_a_damaged_engine_is_not_up_to_date(bundle: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (repository / ENGINES[0] / "model.onnx").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"damaged!")
    reached = RuntimeError("a build was started")

    def stop(*_: object, **__: object) -> None:
        raise reached

    monkeypatch.setattr(to_onnx, "export_onnx", stop)
    assert build(bundle, repository, "--stage", "base").exception is reached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-batch", "0"], "0 is not in the range"),
        (
            ["--target", "onnx-npu"],
            "'onnx-npu' is not one of 'cpu', 'onnx-cpu', 'openvino-cpu', 'onnx-cuda', 'tensorrt', 'torch-cuda'",
        ),
        (["--precision", "fp64"], "'fp64' is not one of"),
        (["--precision", "fp16"], "take bf16, few take fp16; .*; available for openvino-cpu: bf16, int8"),
        (
            ["--target", "onnx-cpu", "--precision", "bf16"],
            "no bf16 kernels for CPUs; .*; available for onnx-cpu: fp32, int8",
        ),
        (["--target", "openvino-cpu"], "onnxruntime is as fast; .*; available for openvino-cpu: bf16, int8"),
        (["--target", "onnx-cuda", "--precision", "bf16"], "no bf16 Resize.*; available for onnx-cuda: fp32, fp16"),
        (["--target", "tensorrt", "--gpu", "current"], "this machine has no GPU that CuPy sees"),
        (["--target", "tensorrt"], "such as --gpu sm86"),
        (["--target", "tensorrt", "--gpu", "rtx3090"], "--gpu rtx3090: .* such as --gpu sm86"),
        (["--gpu", "sm86"], "only --target tensorrt"),
        (["--buckets", "fast"], "evaluates every row by itself, which is exact"),
        (["--compile"], "only --target torch-cuda runs PyTorch's compiler; leave it out for onnx-cpu"),
        (["--target", "tensorrt", "--gpu", "sm86", "--compile"], "leave it out for tensorrt"),
        (["--target", "torch-cuda", "--precision", "int8"], "no quantised convolution for CUDA; available for .*bf16"),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(
    bundle: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = build(bundle, tmp_path / "repository", *options)
    assert_plain_error(result, message)
    assert not (tmp_path / "repository").exists()


def assert_plain_error(result: Result, message: str) -> None:
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert re.search(message, " ".join(result.output.split())), result.output


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    assert_plain_error(build(tmp_path / "nowhere", tmp_path), "bundle 'nowhere' has no bundle.json")


def test_damaged_weights_are_refused(bundle: Path, repository: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with (damaged / "sr.safetensors").open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"oops")
    before = contents(repository)
    assert_plain_error(build(damaged, repository, "--stage", "sr"), "sr.safetensors is damaged")
    assert contents(repository) == before


def test_a_repository_that_cannot_be_written_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "denoiser_64").write_text("a file where a folder belongs")
    assert_plain_error(build(bundle, tmp_path, "--stage", "base"), "File exists: .*denoiser_64")


def test_an_engine_that_cannot_run_here_is_installed_only_on_demand_and_says_so(
    bundle: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "export_onnx", exporter_of(built, "sr"))
    monkeypatch.setattr(targets, "why_not_executable", lambda target, gpu: "no GPU")
    options = ["--target", "onnx-cuda", "--stage", "sr"]
    assert_plain_error(build(bundle, tmp_path, *options), "cannot be verified on this machine: no GPU")
    assert not list(tmp_path.glob("*/1/engine"))
    result = build(bundle, tmp_path, *options, "--allow-unverified")
    assert result.exit_code == 0 and "installed WITHOUT proof of parity: no GPU" in result.output
    parity = read_manifest(tmp_path / ENGINES[1]).parity
    assert (parity.forward, parity.batch_invariant) == ([], None)
    assert parity.trajectory == {"not_executed": "no GPU"}
    assert parity.graph["evaluated_by"] == "onnxruntime on the CPU"
    assert 0 < max(row["relative_error"] for row in parity.graph["forward"]) < 1e-4
    assert parity.graph["trajectory"]["psnr_db"] > 60
    assert "up to date" in build(bundle, tmp_path, *options, "--allow-unverified").output
    assert_plain_error(build(bundle, tmp_path, *options), "cannot be verified")  # unproven is not up to date


@pytest.mark.skipif(why_no_bf16() is not None, reason=str(why_no_bf16()))
def test_the_precision_chooses_the_runtime_of_a_cpu(
    bundle: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "export_onnx", exporter_of(built, "base"))
    result = build(bundle, tmp_path, "--stage", "base", "--precision", "bf16")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / ENGINES[0])
    assert (manifest.target, manifest.precision, manifest.device) == ("openvino-cpu", "bf16", "cpu")
    assert "openvino" in manifest.versions and manifest.parity.batch_invariant is True
    assert 1e-4 < max(row["relative_error"] for row in manifest.parity.forward) < 1e-1
    assert 35 <= manifest.parity.trajectory["psnr_db"] < 80
    assert "up to date" in build(bundle, tmp_path, "--stage", "base", "--precision", "bf16").output


def test_a_cpu_without_bf16_gets_no_bf16_engine(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "why_no_bf16", lambda: "no bf16 instructions")
    refused = build(bundle, tmp_path, "--precision", "bf16")
    assert_plain_error(refused, "cannot be verified on this machine: no bf16 instructions")
    assert not list(tmp_path.iterdir()), "refused before face models or configurations were written"


def test_a_plan_is_installed_with_the_parity_of_its_graph_and_the_types_of_its_layers(
    bundle: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed: the extra tensorrt")
    monkeypatch.setattr(to_onnx, "export_onnx", exporter_of(built, "base"))
    options = ["--target", "tensorrt", "--gpu", "sm86", "--precision", "fp16", "--stage", "base", "--max-batch", "2"]
    result = build(bundle, tmp_path, *options, "--allow-unverified")
    assert result.exit_code == 0, result.output
    assert "the fp16 graph (onnxruntime on the CPU in fp32, the result of every operator rounded to fp16)" in " ".join(
        result.output.split()
    )
    folder = tmp_path / ENGINES[0]
    manifest = read_manifest(folder)
    assert (manifest.file, manifest.device, manifest.precision) == ("model.plan", "sm86", "fp16")
    assert {file.name for file in folder.iterdir()} == {"model.plan", "manifest.json"}
    assert manifest.file_sha256 == engine_sha256(folder / "model.plan")
    assert (manifest.parity.forward, manifest.parity.batch_invariant) == ([], None)
    assert 1e-5 < max(row["relative_error"] for row in manifest.parity.graph["forward"]) < 1e-2
    convolutions = manifest.conversion["in_half_precision"]["Conv"]
    assert manifest.conversion["layers"]["CONVOLUTION HALF"] == convolutions > 10
    assert "up to date" in build(bundle, tmp_path, *options, "--allow-unverified").output


def test_a_graph_that_misses_a_threshold_is_not_installed_unverified_either(
    bundle: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "export_onnx", perturbed(exporter_of(built, "sr")))
    options = ["--target", "onnx-cuda", "--stage", "sr", "--allow-unverified"]
    assert_plain_error(build(bundle, tmp_path, *options), "super_resolution is not equal to the PyTorch model")
    assert not (tmp_path / ENGINES[1]).exists()


def test_the_face_models_belong_to_the_bundle(bundle: Path, tmp_path: Path) -> None:
    description = dataclasses.replace(read_bundle(bundle), id_vector_model="unknown-fr")
    other = tmp_path / "bundle"
    write_bundle(other, description, load_weights(bundle, "base"), load_weights(bundle, "sr"))
    assert_plain_error(build(other, tmp_path, "--stage", "face"), "'unknown-fr' is unknown: choose sface")


def test_face_models_of_other_id_vectors_are_not_built(bundle: Path, tmp_path: Path) -> None:
    refused = build(bundle, tmp_path, "--stage", "face", "--face-model", "insightface:/models/buffalo_l")
    assert_plain_error(refused, "gives insightface:buffalo_l ID vectors, the bundle takes sface")
    assert not list(tmp_path.glob("*/1/engine"))
