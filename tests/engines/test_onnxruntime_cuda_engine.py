"""The CUDA engine's buffers, binding, padding and fall-back, executed by the real onnxruntime on the CPU device.

Not tested, for want of a GPU: the CUDA provider's kernels and its graphs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_engines

from id3pm.engines import onnxruntime_cuda_engine
from id3pm.engines.base import load_engine
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.engines.onnxruntime_cuda_engine import BoundBatch, OnnxRuntimeCudaEngine, provider_options
from id3pm.errors import EngineError


def random_inputs(rows: int, seed: int = 0) -> EngineInputs:
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in input_shapes(tiny_engines.BASE, rows).items()
    }


@pytest.fixture
def manifest(base_folder: Path) -> Manifest:
    return dataclasses.replace(read_manifest(base_folder), target="onnx-cuda", max_batch=6)


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lets the engine start on the CPU provider and the CPU device; the options it asked CUDA for, by attempt."""
    asked: list[dict[str, Any]] = []
    start = onnxruntime_cuda_engine.open_session
    bind = onnxruntime_cuda_engine.bind_buckets

    def open_session(ort: Any, path: Path, config: Any, options: Any, provider: str, given: dict[str, Any]) -> Any:
        assert provider == "CUDAExecutionProvider"
        asked.append(given)
        return start(ort, path, config, options, "CPUExecutionProvider", {})

    def bind_buckets(ort: Any, session: Any, config: Any, max_batch: int, device: str, index: int) -> Any:
        assert (device, index) == ("cuda", 1)
        return bind(ort, session, config, max_batch, "cpu", 0)

    monkeypatch.setattr(onnxruntime_cuda_engine, "open_session", open_session)
    monkeypatch.setattr(onnxruntime_cuda_engine, "bind_buckets", bind_buckets)
    return asked


@pytest.fixture
def load(base_folder: Path, manifest: Manifest, providers: list[Any]) -> Callable[[], OnnxRuntimeCudaEngine]:
    return lambda: OnnxRuntimeCudaEngine(base_folder / manifest.file, manifest, device_index=1)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6])
def test_rows_are_padded_to_a_bucket_and_come_back_alone(
    base_folder: Path, load: Callable[[], OnnxRuntimeCudaEngine], rows: int
) -> None:
    engine, reference = load(), onnxruntime.InferenceSession(str(base_folder / "model.onnx"))
    engine.run(random_inputs(6, seed=1))  # what it leaves behind must not be seen
    inputs = random_inputs(rows)
    np.testing.assert_array_equal(engine.run(inputs), reference.run(None, inputs)[0])


def test_outputs_of_two_calls_are_different_arrays(load: Callable[[], OnnxRuntimeCudaEngine]) -> None:
    engine = load()
    first = engine.run(random_inputs(3))
    kept = first.copy()
    engine.run(random_inputs(3, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_every_bucket_has_its_own_tensors_and_graph(
    base_folder: Path, load: Callable[[], OnnxRuntimeCudaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []
    runs: list[int] = []

    class Options(onnxruntime.RunOptions):
        def add_run_config_entry(self, key: str, value: str) -> None:
            assert key == "gpu_graph_id"
            ids.append(value)
            super().add_run_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "RunOptions", Options)
    execute = BoundBatch.execute

    def counted(self: BoundBatch) -> None:
        runs.append(len(self._host["x"]))
        execute(self)

    monkeypatch.setattr(BoundBatch, "execute", counted)
    engine = load()
    assert ids == ["1", "2", "3", "4", "6"]
    assert runs == [1, 2, 3, 4, 6]  # all of them when it is loaded
    engine.run(random_inputs(5))
    assert runs[5:] == [6]


def test_a_row_does_not_depend_on_the_others(load: Callable[[], OnnxRuntimeCudaEngine]) -> None:
    engine = load()
    inputs = random_inputs(6)
    together = engine.run(inputs)
    for row in range(6):
        alone = engine.run({name: np.ascontiguousarray(array[row : row + 1]) for name, array in inputs.items()})
        np.testing.assert_array_equal(alone[0], together[row])


def test_cuda_is_asked_for_graphs_and_exact_fp32(
    load: Callable[[], OnnxRuntimeCudaEngine], providers: list[dict[str, Any]]
) -> None:
    engine = load()
    assert providers == [provider_options(1)]
    assert (providers[0]["device_id"], providers[0]["enable_cuda_graph"], providers[0]["use_tf32"]) == (1, 1, 0)
    assert engine.description.endswith(" CUDA fp32")
    engine.close()


def test_a_graph_that_cuda_cannot_record_runs_without_and_says_so(
    load: Callable[[], OnnxRuntimeCudaEngine],
    providers: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start = onnxruntime_cuda_engine.open_session

    def refuse(*arguments: Any) -> Any:
        session = start(*arguments)
        if arguments[-1]["enable_cuda_graph"]:
            raise EngineError("refused") from RuntimeError("not all nodes are on CUDA")
        return session

    monkeypatch.setattr(onnxruntime_cuda_engine, "open_session", refuse)
    with caplog.at_level(logging.WARNING):
        engine = load()
    assert [given["enable_cuda_graph"] for given in providers] == [1, 0]
    assert "without CUDA graphs" in caplog.text and engine.description.endswith(" CUDA fp32")
    assert "not all nodes are on CUDA" in caplog.text
    assert engine.run(random_inputs(2)).shape[0] == 2


def test_without_a_cuda_provider_the_package_is_named(engine_copy: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    tiny_engines.rewrite_manifest(engine_copy, read_manifest(engine_copy), target="onnx-cuda")
    with pytest.raises(EngineError, match="install onnxruntime-gpu"):
        load_engine(engine_copy, device="cuda:1")
