"""TensorRT plans, from the data-centre `tensorrt` module or from `tensorrt_rtx` (TensorRT for RTX): one code path.

All memory stays on the device: inputs and output of `max_batch` rows, and one workspace for all batch buckets, of which
one runs at a time. A call copies its rows there (`DeviceBuffers`), runs the smallest bucket that holds them, and copies
its output, all on the stream of the rows' arrays: the host waits for nothing. The other rows of the bucket compute on
old data and are ignored. Every bucket is one CUDA graph: `tensorrt_rtx` records it by itself, for `tensorrt` it is
recorded here.

No plan has ever been executed by this project's tests, which have no GPU: the checks are tested for real, the rest
against stand-ins for both libraries.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from id3pm.engines.arrays import Array, DeviceArrays
from id3pm.engines.buckets import batch_buckets, bucket_of
from id3pm.engines.cupy_arrays import CupyArrays
from id3pm.engines.device_buffers import DeviceBuffers
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, assert_inputs, input_shapes, output_shape
from id3pm.engines.manifest import Manifest
from id3pm.errors import EngineError, MissingExtraError

logger = logging.getLogger(__name__)

MODULES = ("tensorrt", "tensorrt_rtx")
REBUILD = "run on this machine: id3pm build --target tensorrt --gpu current"
KERNEL_CACHE = "kernels.rtx_cache"
"""File beside the plan with the kernels that `tensorrt_rtx` compiled on this machine, for the next start."""


class TensorRTEngine:
    """An `Engine` over one TensorRT plan, with an execution context and a CUDA graph per batch bucket."""

    def __init__(
        self, path: Path, manifest: Manifest, device_index: int = 0, arrays: DeviceArrays | None = None
    ) -> None:
        """Deserialises a plan, and runs every bucket once, so that no request waits for kernels.

        Args:
            path: The `.plan` file.
            manifest: The engine's manifest.
            device_index: Number of the CUDA device.
            arrays: Its memory; `None`: CuPy's.

        Raises:
            MissingExtraError: TensorRT or CuPy is not installed.
            EngineError: CuPy cannot use the device; or the plan was built by another TensorRT version, or for another
                GPU, or is not what the manifest says, or cannot be loaded.
        """
        self.config = manifest.unet
        self.max_batch = manifest.max_batch
        self._trt = import_runtime(manifest)
        self.arrays: DeviceArrays = arrays or CupyArrays(device_index)
        check_capability(manifest, self.arrays.capability)
        self.description = f"{self._trt.__name__} {self._trt.__version__} {manifest.device} {manifest.precision}"
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.WARNING))
        self._plan = deserialise(self._trt, self._runtime, path)
        check_plan(self._trt, self._plan, manifest)
        self._buffers = DeviceBuffers(self.arrays, self.config, self.max_batch)
        self._workspace_bytes = max(4, self._plan.device_memory_size_v2)
        self._workspace = self.arrays.zeros((-(-self._workspace_bytes // 4),))
        self._kernels = _KernelCache(path.with_name(KERNEL_CACHE)) if hasattr(self._trt, "IRuntimeCache") else None
        self._buckets = batch_buckets(self.max_batch, manifest.buckets)
        self._contexts = {rows: self._context(index, rows) for index, rows in enumerate(self._buckets)}
        self._graphs: dict[int, Callable[[], None]] = {}
        self._warm_up()

    def _context(self, profile: int, rows: int) -> Any:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._kernels is None:
            context = self._plan.create_execution_context(strategy)
        else:
            config = self._plan.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            # Kernels for a bucket's shape at once, not some time after the first run.
            strategies = self._trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            self._kernels.attach(config)
            context = self._plan.create_execution_context(config)
        if context is None or not context.set_optimization_profile_async(profile, self.arrays.stream):
            raise EngineError(f"{self.description}: no memory for batches of {rows}")
        context.set_device_memory(self.arrays.address(self._workspace), self._workspace_bytes)
        for name, shape in input_shapes(self.config, rows).items():
            if not context.set_input_shape(name, shape):
                raise EngineError(f"{self.description}: the plan takes no {name} of shape {shape}")
        for name, address in self._buffers.addresses.items():
            context.set_tensor_address(name, address)
        return context

    def _warm_up(self) -> None:
        """Runs every bucket, so that it is compiled, set up and recorded before the first request."""
        for rows in self._buckets * 2:  # the first run sets up; tensorrt_rtx records its graph in the second
            self._execute(rows)
            self.arrays.synchronize()
        if self._kernels is not None:
            self._kernels.save()
            return
        try:
            self._graphs = {rows: self.arrays.record(lambda rows=rows: self._execute(rows)) for rows in self._buckets}  # type: ignore[misc]
        except EngineError as error:
            logger.warning("%s without CUDA graphs: %s", self.description, error)

    def _execute(self, rows: int) -> None:
        if rows in self._graphs:
            self._graphs[rows]()
        elif not self._contexts[rows].execute_async_v3(self.arrays.stream):
            raise EngineError(f"{self.description}: execution failed")

    def run(self, inputs: EngineInputs) -> Array:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        self._buffers.fill(inputs)
        self._execute(bucket_of(rows, self._buckets))
        return self._buffers.output(rows)

    def close(self) -> None:
        """Frees the graphs, the contexts, the plan and the device memory."""
        self.arrays.use()
        self.arrays.synchronize()
        self._graphs.clear()
        self._contexts.clear()
        self._plan = self._runtime = self._kernels = None
        del self._buffers, self._workspace


class _KernelCache:
    """The runtime cache of `tensorrt_rtx`, shared by all contexts of a plan, and its file.

    A file of another GPU, driver or version is ignored by TensorRT itself, which then compiles and writes a new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = path.read_bytes() if path.exists() else b""
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Gives the cache to the runtime configuration of one context."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._before:
                self._cache.deserialize(self._before)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Writes the file if it has changed. If the folder is not writable, later starts compile again."""
        content = bytes(self._cache.serialize())
        if content == self._before:
            return
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            partial.write_bytes(content)
            partial.replace(self._path)
        except OSError as error:
            logger.warning("compiled kernels are not kept (%s): every start will compile them again", error.strerror)


def import_runtime(manifest: Manifest) -> Any:
    """The TensorRT module that built the plan; a plan runs under exactly the version that built it.

    Raises:
        MissingExtraError: The module is not installed.
        EngineError: Another version is installed, or the manifest does not name one.
    """
    name = next((module for module in MODULES if module in manifest.versions), None)
    if name is None:
        raise EngineError(f"the manifest's versions name none of {', '.join(MODULES)}; {REBUILD}")
    try:
        trt = importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} {manifest.versions[name]} is not installed: this engine needs it") from error
    if trt.__version__ != manifest.versions[name]:
        raise EngineError(
            f"{name} {trt.__version__} is installed, the engine was built by {manifest.versions[name]}; {REBUILD}"
        )
    return trt


def check_capability(manifest: Manifest, here: str) -> None:
    """Refuses a plan that was built for another compute capability than this GPU's.

    Raises:
        EngineError: `manifest.device` is not `here`, such as `sm86`.
    """
    if manifest.device != here:
        raise EngineError(f"this GPU is {here}, the engine was built for {manifest.device}; {REBUILD}")


def deserialise(trt: Any, runtime: Any, path: Path) -> Any:
    """The plan in a file, as an engine on the current device.

    Raises:
        EngineError: TensorRT refuses it; the message gives its reason, if any.
    """
    content = path.read_bytes()
    reasons = ""
    if hasattr(runtime, "get_engine_validity"):
        validity, bits = runtime.get_engine_validity(content)
        known = trt.EngineInvalidityDiagnostics.__members__
        if validity == trt.EngineValidity.INVALID:
            reasons = ", ".join(name for name, reason in known.items() if bits & int(reason))
            reasons = f" ({reasons or 'no reason given'})"
    plan = None if reasons else runtime.deserialize_cuda_engine(content)
    if plan is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot load this plan{reasons}; {REBUILD}")
    return plan


def check_plan(trt: Any, plan: Any, manifest: Manifest) -> None:
    """Refuses a plan whose tensors or batch sizes are not those of its manifest.

    Raises:
        EngineError: Something differs; the message has the actual and the expected values.
    """
    shapes = {**input_shapes(manifest.unet, 1), OUTPUT_NAME: output_shape(manifest.unet, 1)}
    wanted = {name: ("FLOAT", (-1, *shape[1:])) for name, shape in shapes.items()}
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    found = {name: (plan.get_tensor_dtype(name).name, tuple(plan.get_tensor_shape(name))) for name in names}
    if found != wanted:
        raise EngineError(f"the plan's tensors are {found}, its manifest says {wanted}; {REBUILD}")
    profiles = [plan.get_tensor_profile_shape("x", index) for index in range(plan.num_optimization_profiles)]
    sizes = [sorted({shape[0] for shape in shapes}) for shapes in profiles]
    if sizes != [[rows] for rows in batch_buckets(manifest.max_batch, manifest.buckets)]:
        raise EngineError(
            f"the plan's batch sizes are {sizes}, not those of max_batch={manifest.max_batch} with {manifest.buckets} "
            f"buckets; {REBUILD}"
        )
