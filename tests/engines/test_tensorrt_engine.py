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
from id3pm.engines.tensorrt_engine import check_capability, deserialise, import_runtime
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
    check_capability(manifest, "sm86")
    with pytest.raises(EngineError, match="this GPU is sm89, the engine was built for sm86"):
        check_capability(manifest, "sm89")


def test_loader_comes_as_far_as_the_runtime(
    engine_copy: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    tiny_engines.rewrite_manifest(engine_copy, manifest)
    with pytest.raises(MissingExtraError, match="tensorrt_rtx"):
        load_engine(engine_copy, device="cuda:0")


def test_the_real_module_has_all_that_the_engine_uses() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="not installed: the extra tensorrt")
    for owner, names in {
        trt: ("Runtime", "Logger", "IRuntimeCache"),
        trt.ExecutionContextAllocationStrategy: ("USER_MANAGED",),
        trt.CudaGraphStrategy: ("WHOLE_GRAPH_CAPTURE",),
        trt.DynamicShapesKernelSpecializationStrategy: ("EAGER",),
        trt.EngineValidity: ("INVALID",),
        trt.Runtime: ("deserialize_cuda_engine", "get_engine_validity"),
        trt.ICudaEngine: (
            "create_execution_context",
            "create_runtime_config",
            "device_memory_size_v2",
            "get_tensor_dtype",
            "get_tensor_name",
            "get_tensor_profile_shape",
            "get_tensor_shape",
            "num_io_tensors",
            "num_optimization_profiles",
        ),
        trt.IRuntimeConfig: (
            "create_runtime_cache",
            "cuda_graph_strategy",
            "dynamic_shapes_kernel_specialization_strategy",
            "set_execution_context_allocation_strategy",
            "set_runtime_cache",
        ),
        trt.IRuntimeCache: ("deserialize", "serialize"),
        trt.IExecutionContext: (
            "execute_async_v3",
            "set_device_memory",
            "set_input_shape",
            "set_optimization_profile_async",
            "set_tensor_address",
        ),
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == [], owner


def test_the_real_module_refuses_a_plan_that_cannot_run_here(tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="not installed: the extra tensorrt")
    (tmp_path / "model.plan").write_bytes(b"no plan" * 100)
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* cannot load this plan \(.*\); run on this machine"):
        deserialise(trt, runtime, tmp_path / "model.plan")


def test_reasons_for_a_refusal_are_named(tmp_path: Path) -> None:
    trt = types.SimpleNamespace(
        __name__="tensorrt_rtx",
        __version__="1.2.3",
        EngineValidity=types.SimpleNamespace(INVALID="invalid"),
        EngineInvalidityDiagnostics=types.SimpleNamespace(
            __members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
        ),
    )
    runtime = types.SimpleNamespace(get_engine_validity=lambda content: ("invalid", 5))
    (tmp_path / "model.plan").write_bytes(b"plan")
    with pytest.raises(EngineError, match=r"cannot load this plan \(VERSION_MISMATCH, OLD_CUDA_DRIVER\)"):
        deserialise(trt, runtime, tmp_path / "model.plan")
