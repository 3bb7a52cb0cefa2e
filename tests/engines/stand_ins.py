"""Stand-ins for CUDA and both TensorRT modules, whose device memory is host memory and whose network is a sum."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from id3pm.engines.inputs import OUTPUT_NAME


class Status(enum.Enum):
    """As `cudaError_t`."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


OK = Status.cudaSuccess


class FakeCuda(types.ModuleType):
    """`cuda.bindings.runtime` over host memory, with streams that can record."""

    cudaError_t = Status  # noqa: N815
    cudaDeviceAttr = types.SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=6
    )
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.memory: dict[int, Any] = {}
        self.device: int | None = None
        self.full = False
        self.can_record = True
        self.streams = 0
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launched: list[int] = []
        self.recording: list[Callable[[], None]] | None = None

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def cudaSetDevice(self, index: int) -> tuple[Status]:  # noqa: N802
        self.device = index
        return (OK,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Status, int]:  # noqa: N802
        return OK, attribute

    def cudaStreamCreate(self) -> tuple[Status, int]:  # noqa: N802
        self.streams += 1
        return OK, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:  # noqa: N802
        self.streams -= 1
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        assert self.recording is None
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:  # noqa: N802
        if self.full:
            return Status.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    def cudaMemset(self, address: int, value: int, size: int) -> tuple[Status]:  # noqa: N802
        assert size <= len(self.memory[address])
        ctypes.memset(address, value, size)
        return (OK,)

    def cudaFree(self, address: int) -> tuple[Status]:  # noqa: N802
        del self.memory[address]
        return (OK,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Status]:
        on_device = target if kind == 1 else source
        assert size <= len(self.memory[on_device])
        ctypes.memmove(target, source, size)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Status]:  # noqa: N802
        assert self.recording is None and stream == 77 and mode == 1
        self.recording = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, Any]:  # noqa: N802
        recorded, self.recording = self.recording, None
        return (OK, recorded) if self.can_record else (Status.cudaErrorStreamCaptureInvalidated, None)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Status, int]:  # noqa: N802
        number = len(self.graphs) + 1
        self.graphs[number] = graph
        return OK, number

    def cudaGraphDestroy(self, graph: Any) -> tuple[Status]:  # noqa: N802
        return (OK,)

    def cudaGraphLaunch(self, executable: int, stream: int) -> tuple[Status]:  # noqa: N802
        self.launched.append(executable)
        for work in self.graphs[executable]:
            work()
        return (OK,)

    def cudaGraphExecDestroy(self, executable: int) -> tuple[Status]:  # noqa: N802
        del self.graphs[executable]
        return (OK,)

    def cudaGetLastError(self) -> tuple[Status]:  # noqa: N802
        return (OK,)


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
        assert self.workspace is not None and self.workspace[1] >= self.plan.device_memory_size_v2
        self.plan.cuda.enqueue(self._compute)
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

    def __init__(self, cuda: FakeCuda, batches: list[int], tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        self.cuda = cuda
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
