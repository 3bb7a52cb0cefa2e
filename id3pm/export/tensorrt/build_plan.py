"""ONNX -> TensorRT plan, by `tensorrt_rtx` (for a named GPU, without having one) or `tensorrt` (for the GPU here).

Networks are strongly typed: the precision is what the graph says, and `network_check` makes sure of it. Every batch
bucket has an optimisation profile of exactly its size, so that kernels know all shapes.

`tensorrt` measures kernels while it builds and remembers the times in a cache file. `tensorrt_rtx` measures nothing: it
compiles kernels where the plan runs, and `id3pm.engines.tensorrt_engine` keeps those. Its timing cache has no effect
and would need a GPU.

Executed by this project: parsing and building with `tensorrt_rtx` on machines without a GPU. Not executed: the
data-centre `tensorrt`, and any plan on a GPU.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from id3pm.engines.buckets import batch_buckets
from id3pm.engines.inputs import input_shapes
from id3pm.engines.manifest import Manifest
from id3pm.errors import EngineError
from id3pm.export.targets import gpu_here, tensorrt_module
from id3pm.export.tensorrt.check_precision import check_layers

RTX = "tensorrt_rtx"


def timing_cache(folder: Path, gpu: str) -> Path | None:
    """The file beside a stage's engine folder in which kernel times are kept; `None` for `tensorrt_rtx`.

    Raises:
        MissingExtraError: No TensorRT is installed.
    """
    return None if tensorrt_module() == RTX else folder / f"{gpu}.timing_cache"


def build_plan(onnx_path: Path, plan_path: Path, manifest: Manifest, cache: Path | None = None) -> dict[str, int]:
    """Builds a plan for one compute capability.

    Args:
        onnx_path: The graph (its external weights beside it).
        plan_path: The file to write.
        manifest: What is built: architecture, precision, most rows of one call, and `device`, a compute capability such
            as `sm86` that `require_gpu` lets pass.
        cache: File of kernel times, read if it is there and written; see `timing_cache`.

    Returns:
        Number of layers by kind and type; see `network_check.check_layers`.

    Raises:
        EngineError: TensorRT cannot parse or build the graph, or a layer's type is not what the precision promises.
        MissingExtraError: No TensorRT is installed.
    """
    trt = importlib.import_module(tensorrt_module())
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse_from_file(str(onnx_path)):
        errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot parse the graph: {errors}")
    layers = check_layers(network, manifest.precision)
    config = _config(trt, builder, manifest)
    if cache is not None:
        _load_times(config, cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{trt.__name__} {trt.__version__} could not build the network for {manifest.device}; see its log above"
        )
    if cache is not None:
        cache.write_bytes(config.get_timing_cache().serialize())
    plan_path.write_bytes(plan)
    return layers


def _config(trt: Any, builder: Any, manifest: Manifest) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    for rows in batch_buckets(manifest.max_batch, manifest.buckets):
        profile = builder.create_optimization_profile()
        for name, shape in input_shapes(manifest.unet, rows).items():
            profile.set_shape(name, shape, shape, shape)
        config.add_optimization_profile(profile)
    if trt.__name__ == RTX:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[manifest.device.upper()], 0)
    return config


def _load_times(config: Any, cache: Path) -> None:
    """Gives the builder the times in the file, or none where they are of another TensorRT or GPU."""
    times = config.create_timing_cache(cache.read_bytes() if cache.exists() else b"")
    if not config.set_timing_cache(times, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _strongly_typed(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # TensorRT 11 knows no other networks and drops the flag.
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def require_gpu(gpu: str) -> None:
    """Refuses a compute capability that the installed TensorRT does not build for.

    Raises:
        EngineError: It does not; the message names those it does.
        MissingExtraError: No TensorRT is installed.
    """
    trt = importlib.import_module(tensorrt_module())
    if trt.__name__ != RTX:
        here = gpu_here()
        if gpu != here:
            raise EngineError(
                f"--gpu {gpu}: {trt.__name__} builds for the GPU of this machine only ({here or 'there is none'}); "
                "tensorrt-rtx-cu13 builds for others"
            )
    elif gpu.upper() not in trt.ComputeCapability.__members__:
        known = sorted(name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
        raise EngineError(f"--gpu {gpu}: {trt.__name__} {trt.__version__} builds for {', '.join(known)}")
