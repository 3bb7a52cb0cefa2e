"""The way of data through `TensorRTEngine`, with stand-ins for TensorRT and CUDA (`stand_ins.py`).

This proves profiles, buffers, padding, graphs, caches and refusals, not that TensorRT itself computes the right thing.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engines
from stand_ins import FakeCuda, FakePlan, fake_tensorrt

from id3pm.engines import cuda as cuda_module
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.engines.tensorrt_engine import KERNEL_CACHE, TensorRTEngine
from id3pm.errors import EngineError, MissingExtraError

Load = Callable[..., TensorRTEngine]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    cuda = FakeCuda()
    for name, module in {
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": types.ModuleType("cuda.bindings"),
        "cuda.bindings.runtime": cuda,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda


@pytest.fixture
def plan(cuda: FakeCuda) -> FakePlan:
    shapes = {**input_shapes(tiny_engines.BASE, 1), OUTPUT_NAME: output_shape(tiny_engines.BASE, 1)}
    return FakePlan(cuda, [1, 2, 3, 4], {name: ("FLOAT", (-1, *shape[1:])) for name, shape in shapes.items()})


@pytest.fixture
def load(base_folder: Path, tmp_path: Path, plan: FakePlan, monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(module: str = "tensorrt", content: bytes = b"plan", **changes: Any) -> TensorRTEngine:
        monkeypatch.setitem(sys.modules, module, fake_tensorrt(module, plan))
        (tmp_path / "model.plan").write_bytes(content)
        manifest: Manifest = dataclasses.replace(
            read_manifest(base_folder),
            **{"target": "tensorrt", "device": "sm86", "versions": {module: "10.13"}, **changes},
        )
        return TensorRTEngine(tmp_path / "model.plan", manifest, device_index=1)

    return load


def inputs(engine: TensorRTEngine, rows: int) -> EngineInputs:
    rng = np.random.default_rng(rows)
    return {n: rng.standard_normal(shape, dtype=np.float32) for n, shape in input_shapes(engine.config, rows).items()}


def check(engine: TensorRTEngine, rows: int, bucket: int) -> None:
    given = inputs(engine, rows)
    output = engine.run(given)
    assert output.shape == output_shape(engine.config, rows) and output.dtype == np.float32
    np.testing.assert_array_equal(output[:, :3], given["x"] * 2 + given["timesteps"][:, None, None, None])
    assert (output[:, 3:] == bucket).all()


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6)])
def test_rows_go_through_the_smallest_bucket_and_come_back(
    cuda: FakeCuda, plan: FakePlan, load: Load, module: str, rows: int, bucket: int
) -> None:
    plan.batches = [1, 2, 3, 4, 6]
    engine = load(module, max_batch=6)
    cuda.device = None  # as in another thread than the one that loaded
    check(engine, rows, bucket)
    assert cuda.device == 1
    assert engine.description == f"{module} 10.13 sm86 fp32"


def test_outputs_of_two_calls_are_different_arrays(load: Load) -> None:
    engine = load()
    first = engine.run(inputs(engine, 2))
    kept = first.copy()
    engine.run(inputs(engine, 3))
    np.testing.assert_array_equal(first, kept)


def test_tensorrt_replays_one_recorded_graph_per_bucket(cuda: FakeCuda, plan: FakePlan, load: Load) -> None:
    engine = load()
    assert plan.computed == [1, 2, 3, 4] * 2  # set up before anything is recorded
    assert len(cuda.graphs) == 4 and cuda.launched == []
    for rows in (3, 1, 3):
        check(engine, rows, rows)
    assert cuda.launched == [3, 1, 3]


def test_what_cannot_be_recorded_runs_without_graphs_and_says_so(
    cuda: FakeCuda, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.can_record = False
    with caplog.at_level(logging.WARNING):
        engine = load()
    assert "without CUDA graphs" in caplog.text
    assert engine.description == "tensorrt 10.13 sm86 fp32", "it is in receipts: equal images, equal receipts"
    assert "cudaStreamEndCapture failed: cudaErrorStreamCaptureInvalidated" in caplog.text
    check(engine, 2, 2)
    assert cuda.launched == [] and cuda.graphs == {}


def test_tensorrt_rtx_records_by_itself_and_compiles_at_once(cuda: FakeCuda, plan: FakePlan, load: Load) -> None:
    load("tensorrt_rtx")
    assert cuda.graphs == {}
    assert plan.computed == [1, 2, 3, 4] * 2  # it records in the second run
    configs = [context.config for context in plan.contexts]
    assert {config.cuda_graph_strategy for config in configs} == {"whole graph"}
    assert {config.dynamic_shapes_kernel_specialization_strategy for config in configs} == {"eager"}
    assert {config.strategy for config in configs} == {"user managed"}
    assert len({id(config.cache) for config in configs}) == 1


def test_compiled_kernels_are_kept_beside_the_plan(
    plan: FakePlan, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load("tensorrt_rtx").close()
    cache = tmp_path / KERNEL_CACHE
    assert cache.read_bytes() == b"kernels"
    cache.write_bytes(b"more kernels")
    load("tensorrt_rtx")
    assert plan.contexts[-1].config.cache.content == b"more kernels"
    assert cache.read_bytes() == b"more kernels"
    cache.unlink()
    cache.with_name(cache.name + ".partial").mkdir()  # where the file would be written: as good as a full disk
    with caplog.at_level(logging.WARNING):
        check(load("tensorrt_rtx"), 2, 2)
    assert "every start will compile them again" in caplog.text


def test_all_buckets_share_one_workspace_and_its_buffers(cuda: FakeCuda, plan: FakePlan, load: Load) -> None:
    load()
    assert len({context.workspace for context in plan.contexts}) == 1
    assert len({tuple(context.addresses.items()) for context in plan.contexts}) == 1
    assert len(cuda.memory) == 6


def test_close_frees_all_of_the_device(cuda: FakeCuda, load: Load) -> None:
    engine = load()
    assert len(cuda.memory) == 6 and cuda.streams == 1 and len(cuda.graphs) == 4
    engine.close()
    assert not cuda.memory and cuda.streams == 0 and not cuda.graphs


def test_full_device_is_an_error_that_names_the_call(cuda: FakeCuda, load: Load) -> None:
    cuda.full = True
    with pytest.raises(EngineError, match="cudaMalloc failed: cudaErrorMemoryAllocation"):
        load()


def test_failed_execution_is_an_error(plan: FakePlan, load: Load) -> None:
    engine = load("tensorrt_rtx")
    plan.executes = False
    with pytest.raises(EngineError, match="sm86 fp32: execution failed"):
        engine.run(inputs(engine, 1))


def test_plan_that_does_not_deserialise_is_refused(load: Load) -> None:
    with pytest.raises(EngineError, match="tensorrt 10.13 cannot load this plan; run on this machine"):
        load(content=b"damaged")


def test_other_gpu_is_refused(load: Load) -> None:
    with pytest.raises(EngineError, match="this GPU is sm86, the engine was built for sm90"):
        load(device="sm90")


def test_plan_of_other_batch_sizes_is_refused(plan: FakePlan, load: Load) -> None:
    plan.batches = [1, 2, 4]
    with pytest.raises(EngineError, match=re.escape("batch sizes are [[1], [2], [4]], not those of max_batch=4")):
        load()


@pytest.mark.parametrize(
    "change", [{"x": ("HALF", (-1, 3, 16, 16))}, {"x": ("FLOAT", (-1, 3, 64, 64))}, {"y": ("FLOAT", ())}]
)
def test_plan_with_other_tensors_is_refused(plan: FakePlan, load: Load, change: dict[str, Any]) -> None:
    plan.tensors |= change
    with pytest.raises(EngineError, match="the plan's tensors are .* its manifest says"):
        load()


def test_missing_cuda_bindings_are_named(cuda: FakeCuda, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[tensorrt\]"):
        load()


def test_the_real_bindings_have_all_that_is_called() -> None:
    """The stand-in has what the engine uses; so must NVIDIA's package, which needs no GPU to be asked."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="not installed: pip install cuda-bindings")
    source = inspect.getsource(cuda_module)
    names = set(re.findall(r'"(cuda[A-Z]\w+)"', source)) | set(re.findall(r"_api\.(cuda\w+)", source))
    assert {"cudaStreamBeginCapture", "cudaGraphLaunch", "cudaMemcpyKind"} <= names
    assert [name for name in sorted(names) if not hasattr(real, name)] == []
    assert hasattr(real.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert hasattr(real.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(real.cudaDeviceAttr, "cudaDevAttrComputeCapabilityMajor")
