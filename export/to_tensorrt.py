"""ONNX -> TensorRT plan, by `tensorrt_rtx` (for a named GPU, without having one) or `tensorrt` (for the GPU here).

Networks are strongly typed: the precision is what the graph says. One optimisation profile per batch bucket, so that
a batch of one is not served by kernels that were chosen for sixteen.

Executed by this project: parsing and building with `tensorrt_rtx` on machines without a GPU. Not executed: the
data-centre `tensorrt`, and any plan on a GPU.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from id3pm.config import UNetConfig
from id3pm.engines.inputs import input_shapes
from id3pm.errors import EngineError
from targets import gpu_here, tensorrt_module


def batch_buckets(max_batch: int) -> list[tuple[int, int]]:
    """(smallest, largest) number of rows of every optimisation profile: 1, 2, 3-4, 5-8, ... and the rest."""
    buckets, smallest = [], 1
    while smallest <= max_batch:
        largest = min(max_batch, 1 << (smallest - 1).bit_length())
        buckets.append((smallest, largest))
        smallest = largest + 1
    return buckets


def build_plan(onnx_path: Path, plan_path: Path, config: UNetConfig, max_batch: int, gpu: str) -> None:
    """Builds a plan for one compute capability.

    Args:
        onnx_path: The exported graph (its external weights beside it).
        plan_path: The file to write.
        config: The architecture, for the input shapes.
        max_batch: Most rows of one call.
        gpu: Compute capability such as `sm86`, one that `require_gpu` lets pass.

    Raises:
        EngineError: TensorRT cannot parse or build the graph.
        MissingExtraError: No TensorRT is installed.
    """
    trt = importlib.import_module(tensorrt_module())
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse_from_file(str(onnx_path)):
        errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot parse the graph: {errors}")
    build_config = builder.create_builder_config()
    for smallest, largest in batch_buckets(max_batch):
        profile = builder.create_optimization_profile()
        low, high = input_shapes(config, smallest), input_shapes(config, largest)
        for name in low:
            profile.set_shape(name, low[name], high[name], high[name])
        build_config.add_optimization_profile(profile)
    if hasattr(trt, "ComputeCapability"):
        build_config.num_compute_capabilities = 1
        build_config.set_compute_capability(trt.ComputeCapability.__members__[gpu.upper()], 0)
    plan = builder.build_serialized_network(network, build_config)
    if plan is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} could not build the network for {gpu}; see its log above")
    plan_path.write_bytes(plan)


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
    if not hasattr(trt, "ComputeCapability"):
        here = gpu_here()
        if gpu != here:
            raise EngineError(
                f"--gpu {gpu}: {trt.__name__} builds for the GPU of this machine only ({here or 'there is none'}); "
                "tensorrt-rtx-cu13 builds for others"
            )
    elif gpu.upper() not in trt.ComputeCapability.__members__:
        known = sorted(name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
        raise EngineError(f"--gpu {gpu}: {trt.__name__} {trt.__version__} builds for {', '.join(known)}")
