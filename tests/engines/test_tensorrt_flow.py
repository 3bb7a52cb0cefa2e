"""The way of data through `TensorRTEngine`, with stand-ins for TensorRT and CUDA whose device memory is host memory.

This proves profiles, buffers, copies and refusals, not that TensorRT itself computes the right thing.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.engines.tensorrt_engine import TensorRTEngine
from id3pm.errors import EngineError, MissingExtraError

PROFILES = [(1, 4), (1, 1)]


class Status(enum.Enum):
    """As `cudaError_t`."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class FakeCuda(types.ModuleType):
    """`cuda.bindings.runtime` over host memory."""

    cudaError_t = Status  # noqa: N815
    cudaDeviceAttr = types.SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=6
    )
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.memory: dict[int, Any] = {}
        self.device: int | None = None
        self.full = False
        self.streams = 0

    def cudaSetDevice(self, index: int) -> tuple[Status]:  # noqa: N802
        self.device = index
        return (Status.cudaSuccess,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Status, int]:  # noqa: N802
        return Status.cudaSuccess, attribute

    def cudaStreamCreate(self) -> tuple[Status, int]:  # noqa: N802
        self.streams += 1
        return Status.cudaSuccess, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:  # noqa: N802
        self.streams -= 1
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:  # noqa: N802
        if self.full:
            return Status.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return Status.cudaSuccess, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[Status]:  # noqa: N802
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Status]:
        on_device = target if kind == 1 else source
        assert size <= len(self.memory[on_device])
        ctypes.memmove(target, source, size)
        return (Status.cudaSuccess,)


@dataclasses.dataclass
class FakeContext:
    """An execution context that writes `x * 2 + timesteps` as eps, and its profile number as the variance."""

    addresses: dict[str, int] = dataclasses.field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    profile: int = -1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name])).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        low, high = PROFILES[self.profile]
        rows = self.shapes["x"][0]
        assert low <= rows <= high and {shape[0] for shape in self.shapes.values()} == {rows}
        x, timesteps = (self._array(name, self.shapes[name]) for name in ("x", "timesteps"))
        eps = x * 2 + timesteps[:, None, None, None]
        output = self._array(OUTPUT_NAME, (rows, 6, *x.shape[2:]))
        output[:] = np.concatenate([eps, np.full_like(eps, self.profile)], axis=1)
        return True


def fake_tensorrt(profiles: list[tuple[int, int]]) -> types.ModuleType:
    plan = types.SimpleNamespace(
        num_optimization_profiles=len(profiles),
        create_execution_context=FakeContext,
        get_tensor_profile_shape=lambda name, index: [(profiles[index][0], 3), (1, 3), (profiles[index][1], 3)],
    )

    class Runtime:
        def __init__(self, logger: object) -> None:
            pass

        def deserialize_cuda_engine(self, data: bytes) -> object:
            return plan if data == b"plan" else None

    class Logger:
        WARNING = 1

        def __init__(self, level: int) -> None:
            pass

    module = types.ModuleType("tensorrt")
    module.__dict__.update(__version__="10.13", Runtime=Runtime, Logger=Logger)
    return module


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    cuda = FakeCuda()
    for name, module in {
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": types.ModuleType("cuda.bindings"),
        "cuda.bindings.runtime": cuda,
        "tensorrt": fake_tensorrt(PROFILES),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda


@pytest.fixture
def load(base_folder: Path, tmp_path: Path) -> Callable[..., TensorRTEngine]:
    def load(content: bytes = b"plan", device_index: int = 1, **changes: Any) -> TensorRTEngine:
        (tmp_path / "model.plan").write_bytes(content)
        manifest: Manifest = dataclasses.replace(
            read_manifest(base_folder),
            **{"target": "tensorrt", "device": "sm86", "versions": {"tensorrt": "10.13"}, **changes},
        )
        return TensorRTEngine(tmp_path / "model.plan", manifest, device_index=device_index)

    return load


def inputs(engine: TensorRTEngine, rows: int) -> EngineInputs:
    rng = np.random.default_rng(rows)
    return {n: rng.standard_normal(shape, dtype=np.float32) for n, shape in input_shapes(engine.config, rows).items()}


@pytest.mark.parametrize(("rows", "profile"), [(1, 1), (2, 0), (4, 0)])
def test_rows_go_through_the_tightest_profile_and_come_back(
    cuda: FakeCuda, load: Callable[..., TensorRTEngine], rows: int, profile: int
) -> None:
    engine = load()
    cuda.device = None  # as in another thread than the one that loaded
    given = inputs(engine, rows)
    output = engine.run(given)
    assert output.shape == output_shape(engine.config, rows) and output.dtype == np.float32
    np.testing.assert_array_equal(output[:, :3], given["x"] * 2 + given["timesteps"][:, None, None, None])
    assert (output[:, 3:] == profile).all()
    assert cuda.device == 1
    assert engine.description == "tensorrt 10.13 sm86 fp32"


def test_outputs_of_two_calls_are_different_arrays(cuda: FakeCuda, load: Callable[..., TensorRTEngine]) -> None:
    engine = load()
    first = engine.run(inputs(engine, 2))
    kept = first.copy()
    engine.run(inputs(engine, 3))
    np.testing.assert_array_equal(first, kept)


def test_close_frees_device_memory(cuda: FakeCuda, load: Callable[..., TensorRTEngine]) -> None:
    engine = load()
    assert len(cuda.memory) == 5 and cuda.streams == 1
    engine.close()
    assert not cuda.memory and cuda.streams == 0


def test_full_device_is_an_error_that_names_the_call(cuda: FakeCuda, load: Callable[..., TensorRTEngine]) -> None:
    cuda.full = True
    with pytest.raises(EngineError, match="cudaMalloc failed: cudaErrorMemoryAllocation"):
        load()


def test_plan_that_does_not_deserialise_is_refused(cuda: FakeCuda, load: Callable[..., TensorRTEngine]) -> None:
    with pytest.raises(EngineError, match="cannot be deserialised; run on this machine"):
        load(b"damaged")


def test_other_gpu_is_refused(cuda: FakeCuda, load: Callable[..., TensorRTEngine]) -> None:
    with pytest.raises(EngineError, match="this GPU is sm86, the engine was built for sm90"):
        load(device="sm90")


def test_batch_outside_all_profiles_is_refused(
    cuda: FakeCuda, load: Callable[..., TensorRTEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt([(1, 2)]))
    engine = load()
    with pytest.raises(EngineError, match="no optimisation profile covers 3 rows"):
        engine.run(inputs(engine, 3))


def test_missing_cuda_python_is_named(
    cuda: FakeCuda, load: Callable[..., TensorRTEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingExtraError, match="pip install cuda-python"):
        load()
