"""`id3pm build --target torch-cuda`. Here PyTorch has no GPU: where one is needed, it computes on the CPU instead."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from eager_compiler import EagerCompiler

from id3pm.engines import torch_engine
from id3pm.engines.base import load_engine
from id3pm.engines.host_access import on_host
from id3pm.engines.inputs import input_shapes
from id3pm.engines.manifest import MANIFEST_NAME, read_manifest
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import EngineError, MissingExtraError
from id3pm.export import build as build_engines
from id3pm.export import engine_folder, targets
from id3pm.formats.bundle import read_bundle, weights_hash
from id3pm.sampling.receipt import add_stage, new_receipt
from id3pm.serving.protocol.served_models import MODELS

ENGINE = "denoiser_64/1/engine"


def build(bundle: Path, repository: Path, *options: str) -> Result:
    arguments = ["--bundle", str(bundle), "--repository", str(repository), "--stage", "base", "--max-batch", "2"]
    return CliRunner().invoke(build_engines.main, [*arguments, "--target", "torch-cuda", *options])


@pytest.fixture
def no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "cuda_device", lambda index: "cpu")
    monkeypatch.setattr(targets, "why_not_executable", lambda target, gpu: None)


def test_without_a_gpu_the_parity_is_that_of_the_network_in_its_precision(
    exported_bundle: Path, tmp_path: Path, no_gpu: None
) -> None:
    options = ["--precision", "bf16"]
    refused = build(exported_bundle, tmp_path, *options)
    assert refused.exit_code == 1 and "sees no GPU" in refused.output
    result = build(exported_bundle, tmp_path, *options, "--allow-unverified")
    assert result.exit_code == 0 and "installed WITHOUT proof of parity" in result.output, result.output
    manifest = read_manifest(tmp_path / ENGINE)
    assert (manifest.file, manifest.opset, manifest.onnx) == ("model.safetensors", None, None)
    assert manifest.file_sha256 == weights_hash(exported_bundle, "base") and manifest.buckets == "exact"
    assert manifest.parity.forward == [] and manifest.parity.thresholds["batch_invariant"] is True
    graph = manifest.parity.graph
    assert graph["evaluated_by"].endswith("cpu bf16") and graph["trajectory"]["psnr_db"] > 35
    assert 1e-4 < max(row["relative_error"] for row in graph["forward"]) < 1e-1
    with pytest.raises(EngineError, match="sees 0 CUDA devices"):
        load_engine(tmp_path / ENGINE, device="cuda:0")


def test_an_engine_that_can_run_is_proven_and_computes_what_the_bundle_does(
    exported_bundle: Path, tmp_path: Path, on_cpu: None
) -> None:
    result = build(exported_bundle, tmp_path, "--buckets", "fast")
    assert result.exit_code == 0 and "installed" in result.output, result.output
    manifest = read_manifest(tmp_path / ENGINE)
    assert len(manifest.parity.forward) == 10 and manifest.parity.graph == {}
    assert manifest.parity.company["rows"] == [1, 2] and manifest.parity.company["psnr_db"] > 60
    assert "up to date" in build(exported_bundle, tmp_path, "--buckets", "fast").output
    engine, reference = load_engine(tmp_path / ENGINE, device="cuda"), TorchEngine(exported_bundle, "base")
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal(s, dtype=np.float32) for n, s in input_shapes(engine.config, 2).items()}
    np.testing.assert_allclose(on_host(engine).run(inputs), reference.run(inputs), atol=1e-5)


def test_an_exact_engine_gives_equal_bits_in_any_company(exported_bundle: Path, tmp_path: Path, on_cpu: None) -> None:
    """By PyTorch's own kernels on the CPU: all calls have one size."""
    result = build(exported_bundle, tmp_path, "--max-batch", "5")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / ENGINE)
    assert (manifest.buckets, manifest.parity.batch_invariant, manifest.parity.company) == ("exact", True, {})
    engine = on_host(load_engine(tmp_path / ENGINE, device="cuda"))
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal(s, dtype=np.float32) for n, s in input_shapes(engine.config, 5).items()}
    together = engine.run(inputs)
    for row in range(5):
        alone = engine.run({name: array[row : row + 1] for name, array in inputs.items()})
        np.testing.assert_array_equal(alone[0], together[row])


def test_a_compiled_engine_is_proven_and_told_apart(
    exported_bundle: Path, tmp_path: Path, on_cpu: None, eager_compiler: EagerCompiler
) -> None:
    assert build(exported_bundle, tmp_path).exit_code == 0
    plain = read_manifest(tmp_path / ENGINE)
    result = build(exported_bundle, tmp_path, "--compile")
    assert result.exit_code == 0 and "other compiled" in result.output, result.output
    manifest = read_manifest(tmp_path / ENGINE)
    assert (plain.compiled, manifest.compiled) == (False, True)
    assert manifest.parity.batch_invariant and len(manifest.parity.forward) == 10
    (proven,) = eager_compiler.calls
    assert proven.graphs > 0, "what was proven was compiled"
    assert "up to date" in build(exported_bundle, tmp_path, "--compile").output
    engine = load_engine(tmp_path / ENGINE, device="cuda")
    receipt = add_stage(new_receipt("tiny", 1, None), manifest, engine.description, manifest.sampling)
    assert receipt["stages"]["base"]["engine"].endswith(" fp32 compiled")
    assert len(eager_compiler.calls) == 2, "the loader compiles it, too"


def test_an_engine_that_cannot_be_compiled_is_not_installed(
    exported_bundle: Path, tmp_path: Path, on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> object:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    result = build(exported_bundle, tmp_path, "--compile")
    assert result.exit_code == 1 and "cannot run this engine on cpu: Failed to find C compiler" in result.output
    assert not (tmp_path / ENGINE).exists()


def test_a_torch_too_old_for_the_compiler_is_refused_before_the_build(
    exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for another machine: an engine runs with the version that built it alone."""
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu130")
    result = build(exported_bundle, tmp_path / "repository", "--compile", "--allow-unverified")
    assert result.exit_code == 1 and "torch 2.9.1+cu130: compiled networks repeat their bits from 2.10" in result.output
    assert not (tmp_path / "repository").exists(), "nothing was begun"


def test_another_version_of_torch_is_refused_and_a_missing_one_named(
    exported_bundle: Path, tmp_path: Path, on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(exported_bundle, tmp_path, "--buckets", "fast").exit_code == 0
    file = tmp_path / ENGINE / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    manifest["versions"]["torch"] = "1.0.0+cpu"
    file.write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"is installed, the engine was built by 1\.0\.0; run: id3pm build"):
        load_engine(tmp_path / ENGINE, device="cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="torch is not installed"):
        load_engine(tmp_path / ENGINE, device="cuda")


def test_both_stages_fill_their_calls_with_the_same_images(exported_bundle: Path, tmp_path: Path, on_cpu: None) -> None:
    arguments = ["--bundle", str(exported_bundle), "--repository", str(tmp_path), "--target", "torch-cuda"]
    found = []
    for stage, model in engine_folder.MODELS.items():
        result = CliRunner().invoke(build_engines.main, [*arguments, "--stage", stage])
        assert result.exit_code == 0, result.output
        found.append(read_manifest(tmp_path / model / "1" / "engine").max_batch)
    rows = MODELS["super_resolution"].parameters["max_rows"]
    assert found == [2 * rows, rows] and rows <= MODELS["denoiser_64"].parameters["max_rows"]


def test_the_default_batch_follows_from_the_evaluations_of_a_step(exported_bundle: Path) -> None:
    bundle = read_bundle(exported_bundle)
    student = dataclasses.replace(bundle.base, guidance_range=(1.0, 4.0))
    for target in ("torch-cuda", "tensorrt", "onnx-cuda"):
        of = [targets.default_max_batch(target, unet) for unet in (bundle.base, student, bundle.sr)]
        assert of == [16, 8, 8]
    assert {targets.default_max_batch("onnx-cpu", unet) for unet in (bundle.base, student, bundle.sr)} == {16}
