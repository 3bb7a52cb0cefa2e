"""The way of data through `TensorRTEngine`: stand-ins for TensorRT (`stand_ins.py`), arrays of a foreign device.

This proves profiles, buffers, padding, graphs, caches and refusals, and that nothing goes through the host; not that
TensorRT itself computes the right thing.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engines
from stand_ins import FakePlan, fake_tensorrt
from strict_arrays import DEVICE, StrictDeviceArrays

from id3pm.engines.host_access import on_host
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.engines.tensorrt_engine import KERNEL_CACHE, TensorRTEngine
from id3pm.errors import EngineError

Load = Callable[..., TensorRTEngine]


@pytest.fixture
def arrays() -> StrictDeviceArrays:
    return StrictDeviceArrays()


@pytest.fixture
def plan(arrays: StrictDeviceArrays) -> FakePlan:
    shapes = {**input_shapes(tiny_engines.BASE, 1), OUTPUT_NAME: output_shape(tiny_engines.BASE, 1)}
    return FakePlan(arrays, [1, 2, 3, 4], {name: ("FLOAT", (-1, *shape[1:])) for name, shape in shapes.items()})


@pytest.fixture
def load(base_folder: Path, tmp_path: Path, plan: FakePlan, monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(module: str = "tensorrt", content: bytes = b"plan", **changes: Any) -> TensorRTEngine:
        monkeypatch.setitem(sys.modules, module, fake_tensorrt(module, plan))
        (tmp_path / "model.plan").write_bytes(content)
        manifest: Manifest = dataclasses.replace(
            read_manifest(base_folder),
            **{"target": "tensorrt", "device": "sm86", "versions": {module: "10.13"}, "buckets": "fast", **changes},
        )
        return TensorRTEngine(tmp_path / "model.plan", manifest, 1, plan.arrays)

    return load


def inputs(engine: TensorRTEngine, rows: int) -> EngineInputs:
    rng = np.random.default_rng(rows)
    return {n: rng.standard_normal(shape, dtype=np.float32) for n, shape in input_shapes(engine.config, rows).items()}


def run(engine: TensorRTEngine, given: EngineInputs) -> np.ndarray:
    return on_host(engine).run(given)


def check(engine: TensorRTEngine, rows: int, bucket: int) -> None:
    given = inputs(engine, rows)
    output = run(engine, given)
    assert output.shape == output_shape(engine.config, rows) and output.dtype == np.float32
    np.testing.assert_array_equal(output[:, :3], given["x"] * 2 + given["timesteps"][:, None, None, None])
    assert (output[:, 3:] == bucket).all()


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6)])
def test_rows_go_through_the_smallest_bucket_and_come_back(
    plan: FakePlan, load: Load, module: str, rows: int, bucket: int
) -> None:
    plan.batches = [1, 2, 3, 4, 6]
    engine = load(module, max_batch=6)
    check(engine, rows, bucket)
    assert engine.description == f"{module} 10.13 sm86 fp32"


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_exact_buckets_run_every_call_as_one_of_the_largest_size(plan: FakePlan, load: Load, rows: int) -> None:
    plan.batches = [4]
    check(load(buckets="exact"), rows, 4)
    assert set(plan.computed) == {4}


def test_outputs_of_two_calls_are_different_arrays(load: Load) -> None:
    engine = load()
    there = {name: engine.arrays.from_host(array) for name, array in inputs(engine, 2).items()}
    first = engine.run(there)
    kept = engine.arrays.to_host(first)()
    run(engine, inputs(engine, 3))
    np.testing.assert_array_equal(engine.arrays.to_host(first)(), kept)


def test_a_call_moves_nothing_between_host_and_device(arrays: StrictDeviceArrays, load: Load) -> None:
    engine = load()
    there = {name: arrays.from_host(array) for name, array in inputs(engine, 3).items()}
    before = len(arrays.to_device), len(arrays.from_device)
    output = engine.run(there)
    assert output.device == DEVICE and (len(arrays.to_device), len(arrays.from_device)) == before


def test_tensorrt_replays_one_recorded_graph_per_bucket(arrays: StrictDeviceArrays, plan: FakePlan, load: Load) -> None:
    engine = load()
    assert plan.computed == [1, 2, 3, 4] * 2  # set up before anything is recorded
    assert len(arrays.recorded) == 4 and arrays.replayed == []
    for rows in (3, 1, 3):
        check(engine, rows, rows)
    assert arrays.replayed == [2, 0, 2]


def test_what_cannot_be_recorded_runs_without_graphs_and_says_so(
    arrays: StrictDeviceArrays, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    arrays.can_record = False
    with caplog.at_level(logging.WARNING):
        engine = load()
    assert "without CUDA graphs" in caplog.text
    assert engine.description == "tensorrt 10.13 sm86 fp32", "it is in receipts: equal images, equal receipts"
    assert "cudaErrorStreamCaptureInvalidated" in caplog.text
    check(engine, 2, 2)
    assert arrays.replayed == []


def test_tensorrt_rtx_records_by_itself_and_compiles_at_once(
    arrays: StrictDeviceArrays, plan: FakePlan, load: Load
) -> None:
    load("tensorrt_rtx")
    assert arrays.recorded == []
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


def test_all_buckets_share_one_workspace_and_its_buffers(
    arrays: StrictDeviceArrays, plan: FakePlan, load: Load
) -> None:
    load()
    assert len({context.workspace for context in plan.contexts}) == 1
    assert len({tuple(context.addresses.items()) for context in plan.contexts}) == 1
    names = len(input_shapes(tiny_engines.BASE, 1))
    assert len(arrays.allocated) == names + 2, "the inputs, the output, the workspace"


def test_close_frees_all_of_the_device(load: Load) -> None:
    engine = load()
    kept = [weakref.ref(array) for array in (engine._workspace, engine._buffers._output)]
    engine.close()
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_full_device_is_an_error(arrays: StrictDeviceArrays, load: Load) -> None:
    arrays.full = True
    with pytest.raises(EngineError, match="out of memory"):
        load()


def test_failed_execution_is_an_error(plan: FakePlan, load: Load) -> None:
    engine = load("tensorrt_rtx")
    plan.executes = False
    with pytest.raises(EngineError, match="sm86 fp32: execution failed"):
        run(engine, inputs(engine, 1))


def test_plan_that_does_not_deserialise_is_refused(load: Load) -> None:
    with pytest.raises(EngineError, match="tensorrt 10.13 cannot load this plan; run on this machine"):
        load(content=b"damaged")


def test_other_gpu_is_refused(load: Load) -> None:
    with pytest.raises(EngineError, match="this GPU is sm86, the engine was built for sm90"):
        load(device="sm90")


def test_plan_of_other_batch_sizes_is_refused(plan: FakePlan, load: Load) -> None:
    plan.batches = [1, 2, 4]
    with pytest.raises(
        EngineError, match=re.escape("batch sizes are [[1], [2], [4]], not those of max_batch=4 with fast buckets")
    ):
        load()


@pytest.mark.parametrize(
    "change", [{"x": ("HALF", (-1, 3, 16, 16))}, {"x": ("FLOAT", (-1, 3, 64, 64))}, {"y": ("FLOAT", ())}]
)
def test_plan_with_other_tensors_is_refused(plan: FakePlan, load: Load, change: dict[str, Any]) -> None:
    plan.tensors |= change
    with pytest.raises(EngineError, match="the plan's tensors are .* its manifest says"):
        load()
