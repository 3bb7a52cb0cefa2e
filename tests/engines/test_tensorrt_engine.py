"""The checks before a plan is deserialised, which need neither TensorRT nor a GPU. Execution is not tested here."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import tiny_engines

from id3pm.engines.base import load_engine
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.engines.tensorrt_engine import check_capability, import_runtime
from id3pm.errors import EngineError, MissingExtraError


@pytest.fixture
def manifest(base_folder: Path) -> Manifest:
    versions = {"tensorrt_rtx": "1.2.3", "torch": "2.6"}
    return dataclasses.replace(read_manifest(base_folder), target="tensorrt", versions=versions, device="sm86")


def install(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_module_that_built_the_plan_is_used(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt", "1.2.3")
    rtx = install(monkeypatch, "tensorrt_rtx", "1.2.3")
    assert import_runtime(manifest) is rtx


def test_other_version_is_refused_with_both(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt_rtx", "1.3.0")
    with pytest.raises(EngineError, match=r"1\.3\.0 is installed, the engine was built by 1\.2\.3; run on"):
        import_runtime(manifest)


def test_missing_module_is_named(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"tensorrt_rtx 1\.2\.3 is not installed"):
        import_runtime(manifest)


def test_manifest_without_tensorrt_version_is_refused(manifest: Manifest) -> None:
    with pytest.raises(EngineError, match="name none of tensorrt, tensorrt_rtx"):
        import_runtime(dataclasses.replace(manifest, versions={"torch": "2.6"}))


def test_other_gpu_is_refused_with_both(manifest: Manifest) -> None:
    check_capability(manifest, (8, 6))
    with pytest.raises(EngineError, match="this GPU is sm89, the engine was built for sm86"):
        check_capability(manifest, (8, 9))


def test_loader_comes_as_far_as_the_runtime(
    engine_copy: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    tiny_engines.rewrite_manifest(engine_copy, manifest)
    with pytest.raises(MissingExtraError, match="tensorrt_rtx"):
        load_engine(engine_copy, device="cuda:0")
