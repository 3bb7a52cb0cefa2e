"""The CUDA engine's buffers, binding, padding and fall-back, executed by the real onnxruntime on the CPU device.

Not tested, for want of a GPU: the CUDA provider's kernels and its graphs.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_engines
from strict_arrays import DEVICE, StrictDeviceArrays

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE
from id3pm.engines import onnxruntime_cuda_engine
from id3pm.engines.base import load_engine
from id3pm.engines.host_access import on_host
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.engines.onnxruntime_cuda_engine import OnnxRuntimeCudaEngine, provider_options
from id3pm.engines.onnxruntime_engine import OnnxRuntimeEngine
from id3pm.errors import EngineError
from id3pm.sampling.request import SampleRequest
from id3pm.sampling.scheduler import StepScheduler


def random_inputs(rows: int, seed: int = 0) -> EngineInputs:
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in input_shapes(tiny_engines.BASE, rows).items()
    }


@pytest.fixture
def manifest(base_folder: Path) -> Manifest:
    return dataclasses.replace(read_manifest(base_folder), target="onnx-cuda", max_batch=6, buckets="fast")


@pytest.fixture
def arrays() -> StrictDeviceArrays:
    return StrictDeviceArrays()


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lets the engine start on the CPU provider and the CPU device; the options it asked CUDA for, by attempt."""
    asked: list[dict[str, Any]] = []
    start = onnxruntime_cuda_engine.open_session

    def open_session(ort: Any, path: Path, config: Any, options: Any, provider: str, given: dict[str, Any]) -> Any:
        assert provider == "CUDAExecutionProvider"
        asked.append(given)
        return start(ort, path, config, options, "CPUExecutionProvider", {})

    monkeypatch.setattr(onnxruntime_cuda_engine, "open_session", open_session)
    monkeypatch.setattr(onnxruntime_cuda_engine, "require_provider", lambda ort, provider: None)
    monkeypatch.setattr(onnxruntime_cuda_engine, "DEVICE", "cpu")
    return asked


@pytest.fixture
def load(
    base_folder: Path, manifest: Manifest, arrays: StrictDeviceArrays, providers: list[Any]
) -> Callable[[], OnnxRuntimeCudaEngine]:
    return lambda: OnnxRuntimeCudaEngine(base_folder / manifest.file, manifest, 0, arrays)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6])
def test_rows_are_padded_to_a_bucket_and_come_back_alone(
    base_folder: Path, load: Callable[[], OnnxRuntimeCudaEngine], rows: int
) -> None:
    engine, reference = on_host(load()), onnxruntime.InferenceSession(str(base_folder / "model.onnx"))
    engine.run(random_inputs(6, seed=1))  # what it leaves behind must not be seen
    inputs = random_inputs(rows)
    np.testing.assert_array_equal(engine.run(inputs), reference.run(None, inputs)[0])


def test_a_call_moves_nothing_between_host_and_device_and_its_output_stays(
    load: Callable[[], OnnxRuntimeCudaEngine], arrays: StrictDeviceArrays
) -> None:
    engine = load()
    there = [{name: arrays.from_host(a) for name, a in random_inputs(3, seed).items()} for seed in range(2)]
    before = len(arrays.to_device), len(arrays.from_device)
    first = engine.run(there[0])
    kept = first._array.copy()
    engine.run(there[1])
    assert first.device == DEVICE and (len(arrays.to_device), len(arrays.from_device)) == before
    np.testing.assert_array_equal(first._array, kept)


def test_every_bucket_has_its_own_graph_and_all_share_their_tensors(
    load: Callable[[], OnnxRuntimeCudaEngine], arrays: StrictDeviceArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[tuple[str, str]] = []
    runs: list[str] = []

    class Options(onnxruntime.RunOptions):
        def add_run_config_entry(self, key: str, value: str) -> None:
            entries.append((key, value))
            super().add_run_config_entry(key, value)

    class Session:
        def __init__(self, session: Any) -> None:
            self._session = session
            self.io_binding = session.io_binding

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            runs.append(options.get_run_config_entry("gpu_graph_id"))
            self._session.run_with_iobinding(binding, options)

    start = onnxruntime_cuda_engine.open_session
    monkeypatch.setattr(onnxruntime_cuda_engine, "open_session", lambda *arguments: Session(start(*arguments)))
    monkeypatch.setattr(onnxruntime, "RunOptions", Options)
    engine = load()
    assert [value for key, value in entries if key == "gpu_graph_id"] == ["1", "2", "3", "4", "6"]
    assert entries.count(("disable_synchronize_execution_providers", "1")) == 5, "the host waits for no call"
    assert runs == ["1", "2", "3", "4", "6"], "all of them when it is loaded"
    assert len(arrays.allocated) == len(input_shapes(tiny_engines.BASE, 1)) + 1
    on_host(engine).run(random_inputs(5))
    assert runs[5:] == ["6"]


def test_a_row_does_not_depend_on_the_others(load: Callable[[], OnnxRuntimeCudaEngine]) -> None:
    engine = on_host(load())
    inputs = random_inputs(6)
    together = engine.run(inputs)
    for row in range(6):
        alone = engine.run({name: np.ascontiguousarray(array[row : row + 1]) for name, array in inputs.items()})
        np.testing.assert_array_equal(alone[0], together[row])


def test_images_of_rows_on_the_device_are_those_of_the_cpu_engine(
    base_folder: Path, manifest: Manifest, load: Callable[[], OnnxRuntimeCudaEngine]
) -> None:
    """The whole scheduler on arrays that raise where anything goes through the host, with the real onnxruntime."""
    images = []
    left: queue.Queue[Any] = queue.Queue()
    for engine in (OnnxRuntimeEngine(base_folder / manifest.file, manifest, threads=1), load()):
        scheduler = StepScheduler(engine, manifest.diffusion, STAGE_BASE, max_rows=3)
        for seed in range(3):
            identity = np.random.default_rng(seed).standard_normal(tiny_engines.BASE.identity_dim).astype(np.float32)
            options = SamplingOptions(steps=3, guidance_scale=2.0, dynamic_threshold=0.9)
            request = SampleRequest(id=str(seed), seed=seed, options=options, identity=identity)
            scheduler.submit(request, lambda outcome, seed=seed: left.put((seed, outcome)))  # type: ignore[misc]
        made = dict(left.get(timeout=60) for _ in range(3))
        assert scheduler.close()
        images.append(np.stack([made[seed].image for seed in range(3)]))
    np.testing.assert_array_equal(images[0], images[1])


def test_cuda_is_asked_for_graphs_and_exact_fp32(
    load: Callable[[], OnnxRuntimeCudaEngine], providers: list[dict[str, Any]]
) -> None:
    engine = load()
    assert providers == [provider_options(0, engine.arrays.stream)]
    asked = provider_options(1, 77)
    assert (asked["device_id"], asked["user_compute_stream"]) == (1, "77")
    assert (asked["enable_cuda_graph"], asked["use_tf32"]) == (1, 0)
    assert engine.description.endswith(" sm86 fp32")
    engine.close()


@pytest.mark.parametrize(
    ("version", "waits"), [("1.20.1", True), ("1.27.0", True), ("1.28.0", False), ("1.32.0", False)]
)
def test_a_version_whose_replay_waits_for_the_gpu_is_named(
    load: Callable[[], OnnxRuntimeCudaEngine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    waits: bool,
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with caplog.at_level(logging.INFO):
        load()
    assert ("waits for the GPU in every call" in caplog.text) is waits


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
    assert "without CUDA graphs" in caplog.text and engine.description.endswith(" sm86 fp32")
    assert "not all nodes are on CUDA" in caplog.text
    assert on_host(engine).run(random_inputs(2)).shape[0] == 2


def test_without_a_cuda_provider_the_package_is_named(engine_copy: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    tiny_engines.rewrite_manifest(engine_copy, read_manifest(engine_copy), target="onnx-cuda")
    with pytest.raises(EngineError, match="install onnxruntime-gpu"):
        load_engine(engine_copy, device="cuda:1")
