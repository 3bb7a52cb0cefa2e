"""Targets and precisions of engines: one table, and what each needs to be verified here."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import types
from collections.abc import Mapping
from typing import cast

from id3pm.config import UNetConfig
from id3pm.engines.buckets import Buckets
from id3pm.engines.cupy_arrays import CupyArrays
from id3pm.engines.manifest import CPU_TARGETS, Target
from id3pm.engines.openvino_engine import why_no_bf16
from id3pm.engines.torch_engine import require_torch
from id3pm.errors import EngineError, MissingExtraError
from id3pm.installation import how_to_install

TENSORRT_MODULES = ("tensorrt_rtx", "tensorrt")
"""Preferred first: TensorRT for RTX builds for a named GPU without having one, the data-centre one for the GPU here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """How a graph of one precision is made.

    Attributes:
        converter: Module of `id3pm.export` whose `convert(job, report)` rewrites the exported fp32 graph; `None` where
            the exported graph is used unchanged. It is imported on use.
        recipe: Files of this folder that decide what the converter writes; part of the engine's recipe hash.
        why_not: The reason why it cannot be built; `None` if it can.
    """

    converter: str | None = None
    recipe: tuple[str, ...] = ()
    why_not: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """Properties of a target.

    Attributes:
        file: Name of the engine file.
        device: The device for `load_engine`.
        runtimes: The modules that run it, any one of them.
        precisions: Every precision by name, available or not.
    """

    file: str
    device: str
    runtimes: tuple[str, ...]
    precisions: Mapping[str, Precision]


_FP32 = Precision()
_NO_FP16 = Precision(why_not="the matrix units of CPUs (AMX) take bf16, few take fp16; use bf16")
_NO_BF16 = Precision(why_not="onnxruntime has no bf16 kernels for CPUs; --target cpu takes OpenVINO for it")
_NO_FP32 = Precision(why_not="onnxruntime is as fast; --target cpu takes it for fp32")
_BF16_CPU = Precision()  # OpenVINO rounds: `openvino_engine.py` says what
_HALF = Precision(converter="unet.mixed_precision", recipe=("unet/mixed_precision.py",))
_BF16_CUDA = Precision(
    why_not="onnxruntime's CUDA provider cannot run the whole graph: no bf16 Resize, and no Cos and Sin of the opset "
    "that has bf16 convolutions"
)
_INT8_CUDA = Precision(
    why_not="onnxruntime's CUDA provider has no quantised convolution: it would compute in floating point"
)
_TORCH = Precision()  # the network rounds itself: `UNet.convert`
_INT8_TORCH = Precision(why_not="PyTorch has no quantised convolution for CUDA")
_INT8_CPU = Precision(
    converter="unet.quantize_cpu",
    recipe=(
        "unet/quantize_cpu.py",
        "unet/calibration.py",
        "parity/trajectory.py",
        "parity/inputs.py",
        "parity/identity.py",
    ),
)
_INT8_TENSORRT = Precision(
    converter="unet.quantize_gpu",
    recipe=("unet/quantize_gpu.py", "unet/mixed_precision.py", *_INT8_CPU.recipe),
)

TARGETS: Mapping[Target, TargetInfo] = types.MappingProxyType(
    {
        "onnx-cpu": TargetInfo(
            file="model.onnx",
            device="cpu",
            runtimes=("onnxruntime",),
            precisions={"fp32": _FP32, "fp16": _NO_FP16, "bf16": _NO_BF16, "int8": _INT8_CPU},
        ),
        "openvino-cpu": TargetInfo(
            file="model.onnx",
            device="cpu",
            runtimes=("openvino",),
            precisions={"fp32": _NO_FP32, "fp16": _NO_FP16, "bf16": _BF16_CPU, "int8": _INT8_CPU},
        ),
        "onnx-cuda": TargetInfo(
            file="model.onnx",
            device="cuda",
            runtimes=("onnxruntime",),
            precisions={"fp32": _FP32, "fp16": _HALF, "bf16": _BF16_CUDA, "int8": _INT8_CUDA},
        ),
        "tensorrt": TargetInfo(
            file="model.plan",
            device="cuda",
            runtimes=TENSORRT_MODULES,
            precisions={"fp32": _FP32, "fp16": _HALF, "bf16": _HALF, "int8": _INT8_TENSORRT},
        ),
        "torch-cuda": TargetInfo(
            file="model.safetensors",
            device="cuda",
            runtimes=("torch",),
            precisions={"fp32": _TORCH, "fp16": _TORCH, "bf16": _TORCH, "int8": _INT8_TORCH},
        ),
    }
)
CPU_MAX_BATCH = 16
"""Rows on a CPU, which evaluates them one by one and pads nothing."""
IMAGES_PER_CALL = 8
"""Images on a GPU: `max_rows` of the served super-resolution. docs/engines.md has what other numbers cost."""
CPU = "cpu"
CPU_RUNTIMES: Mapping[str, Target] = types.MappingProxyType(
    {"fp32": "onnx-cpu", "fp16": "openvino-cpu", "bf16": "openvino-cpu", "int8": "openvino-cpu"}
)
"""By precision: the runtime that `--target cpu` means, the fastest one measured (docs/cpu.md)."""
PRECISIONS = tuple(dict.fromkeys(name for target in TARGETS.values() for name in target.precisions))


def runtime(target: str, precision: str) -> Target:
    """The target that a name on the command line means: its own, or for `cpu` the one that suits the precision."""
    return CPU_RUNTIMES[precision] if target == CPU else cast(Target, target)


def require_available(
    target: Target, precision: str, gpu: str | None, buckets: Buckets = "exact", compiled: bool = False
) -> str:
    """Refuses a combination that cannot be built, before any work is done.

    Args:
        target: The runtime.
        precision: The precision.
        gpu: Compute capability, `current`, or `None`.
        buckets: How calls are padded.
        compiled: Whether PyTorch compiles the network.

    Returns:
        The device to build for: `cpu`, `cuda`, or the compute capability that `gpu` names.

    Raises:
        EngineError: The combination is not available; the message says why, and lists the available ones.
        MissingExtraError: `compiled`, and torch is not installed.
    """
    reason = TARGETS[target].precisions[precision].why_not
    if reason is not None:
        available = ", ".join(name for name, known in TARGETS[target].precisions.items() if known.why_not is None)
        raise EngineError(f"--target {target} --precision {precision}: {reason}; available for {target}: {available}")
    if target in CPU_TARGETS and buckets == "fast":
        raise EngineError(
            f"--buckets fast: {target} evaluates every row by itself, which is exact and pads nothing; leave it out"
        )
    if compiled and target != "torch-cuda":
        raise EngineError(f"--compile: only --target torch-cuda runs PyTorch's compiler; leave it out for {target}")
    if compiled:
        require_torch()
        from id3pm.engines.torch_compiled import require_compiler

        require_compiler()
    if target != "tensorrt":
        if gpu is not None:
            raise EngineError(f"--gpu {gpu}: only --target tensorrt builds for a named GPU; leave it out for {target}")
        return TARGETS[target].device
    here = gpu_here() if gpu == "current" else gpu
    if here is None and gpu == "current":
        raise EngineError("--gpu current: this machine has no GPU that CuPy sees; name one, such as --gpu sm86")
    if here is None or not re.fullmatch(r"sm\d+", here):
        raise EngineError(f"--target tensorrt --gpu {gpu}: name the GPU's compute capability, such as --gpu sm86")
    return here


def default_max_batch(target: Target, unet: UNetConfig) -> int:
    """Most rows of one engine call, where none is asked for.

    On a GPU a call with `exact` buckets computes all of its rows, so both stages get those of `IMAGES_PER_CALL` images:
    each fills its calls where the other does.

    Args:
        target: The runtime.
        unet: The network.
    """
    return CPU_MAX_BATCH if target in CPU_TARGETS else IMAGES_PER_CALL * unet.evaluations_per_step


def tensorrt_module() -> str:
    """Name of the TensorRT module that builds here.

    Raises:
        MissingExtraError: None is installed.
    """
    for module in TENSORRT_MODULES:
        if importlib.util.find_spec(module) is not None:
            return module
    raise MissingExtraError(f"TensorRT is not installed; run: {how_to_install('tensorrt')} (or tensorrt, on its GPU)")


def why_not_executable(target: Target, gpu: str | None) -> str | None:
    """Why an engine of this target cannot run on this machine, so that no parity can be measured; `None` if it can."""
    if target == "onnx-cpu":
        return None
    if target == "openvino-cpu":
        return why_no_bf16()
    if target == "onnx-cuda":
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return None
        return f"onnxruntime {onnxruntime.__version__} has no CUDAExecutionProvider; install onnxruntime-gpu"
    if target == "torch-cuda":
        import torch

        return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU"
    here = gpu_here()
    if here is None:
        return "no GPU"
    return None if here == gpu else f"the GPU of this machine is {here}, not {gpu}"


def gpu_here() -> str | None:
    """Compute capability of CUDA device 0 such as `sm86`; `None` without a driver, a GPU or CuPy."""
    if importlib.util.find_spec("cupy") is None:
        return None
    try:
        return CupyArrays(0).capability
    except EngineError:
        return None
