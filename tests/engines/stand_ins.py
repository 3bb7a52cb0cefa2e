"""Stand-ins for both TensorRT modules, whose network is a sum, on the arrays of `strict_arrays`."""

from __future__ import annotations

import ctypes
import dataclasses
import types
from typing import Any

import numpy as np
from strict_arrays import StrictDeviceArrays

from id3pm.engines.inputs import OUTPUT_NAME


@dataclasses.dataclass
class FakeContext:
    """An execution context that writes `x * 2 + timesteps` as eps, and its batch size as the variance."""

    plan: FakePlan
    config: Any
    addresses: dict[str, int] = dataclasses.field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    workspace: tuple[int, int] | None = None
    profile: int = -1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        self.workspace = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] == self.plan.batches[self.profile]

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name])).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.plan.arrays.stream
        assert self.workspace is not None and self.workspace[1] >= self.plan.device_memory_size_v2
        self.plan.arrays.enqueue(self._compute)
        return self.plan.executes

    def _compute(self) -> None:
        rows = self.plan.batches[self.profile]
        self.plan.computed.append(rows)
        x, timesteps = (self._array(name, self.shapes[name]) for name in ("x", "timesteps"))
        assert np.isfinite(x).all()  # rows that have not been written are zero
        eps = x * 2 + timesteps[:, None, None, None]
        output = self._array(OUTPUT_NAME, (rows, 6, *x.shape[2:]))
        output[:] = np.concatenate([eps, np.full_like(eps, rows)], axis=1)


class FakeCache:
    """As `IRuntimeCache`: remembers what was compiled."""

    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, content: bytes) -> bool:
        self.content = content
        return True

    def serialize(self) -> memoryview:
        return memoryview(self.content or b"kernels")


class FakePlan:
    """As `ICudaEngine`, with one profile per batch size."""

    device_memory_size_v2 = 1000

    def __init__(
        self, arrays: StrictDeviceArrays, batches: list[int], tensors: dict[str, tuple[str, tuple[int, ...]]]
    ) -> None:
        self.arrays = arrays
        self.batches = batches
        self.tensors = tensors
        self.executes = True
        self.computed: list[int] = []
        self.contexts: list[FakeContext] = []

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.batches)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return types.SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [(self.batches[index], *self.tensors[name][1][1:])] * 3

    def create_runtime_config(self) -> Any:
        config = types.SimpleNamespace(create_runtime_cache=FakeCache)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config: Any) -> FakeContext:
        self.contexts.append(FakeContext(self, config))
        return self.contexts[-1]


def fake_tensorrt(name: str, plan: FakePlan) -> types.ModuleType:
    """A module `tensorrt` or `tensorrt_rtx` that deserialises `b"plan"` to the given plan."""

    class Runtime:
        def __init__(self, logger: object) -> None:
            pass

        def deserialize_cuda_engine(self, data: bytes) -> object:
            return plan if data == b"plan" else None

    class Logger:
        WARNING = 1

        def __init__(self, level: int) -> None:
            pass

    module = types.ModuleType(name)
    module.__dict__.update(
        __version__="10.13",
        Runtime=Runtime,
        Logger=Logger,
        ExecutionContextAllocationStrategy=types.SimpleNamespace(USER_MANAGED="user managed"),
    )
    if name == "tensorrt_rtx":
        module.__dict__.update(
            IRuntimeCache=FakeCache,
            CudaGraphStrategy=types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
            DynamicShapesKernelSpecializationStrategy=types.SimpleNamespace(EAGER="eager"),
        )
    return module
