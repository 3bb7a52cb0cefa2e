"""What a distillation run will take: memory by counting, time from one evaluation of the network on this device."""

from __future__ import annotations

import dataclasses
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from id3pm.config import UNetConfig
from id3pm.training.distillation.config import DistillConfig
from id3pm.unet.model import UNet

BYTES_PER_PARAMETER = 28
"""Student, its gradient, Adam's two moments, its average, the teacher, and the teacher's encoder beside it: fp32."""
STEP_EVALUATIONS = 7.0
"""Cost of a row of a step in evaluations: 3 forward and backward, 2 for the guided target, 1 for the student's own
image before, 1 for the features of both images and their gradient."""
TIMED = 2  # evaluations; the faster one counts


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        parameters: Of the student.
        teraflops: Of one evaluation of one image.
        memory_gb: Weights, gradients, optimiser, average and teacher; without activations.
        evaluation_s: Of one evaluation of one image without gradient, in fp32 by PyTorch.
        pairs_s: Of all the teacher's images, by one process without a faster engine.
        step_s: Of one optimiser step by one process, without the identity loss.
    """

    parameters: int
    teraflops: float
    memory_gb: float
    evaluation_s: float
    pairs_s: float
    step_s: float

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"student: {self.parameters / 1e6:.1f} M parameters, {self.teraflops:.3g} TFLOP an evaluation",
            f"memory: {self.memory_gb:.2f} GB for weights, optimiser and teacher; activations come on top",
            f"the teacher's images: {self.pairs_s / 3600:.2f} h at {self.evaluation_s:.3g} s an evaluation; an engine "
            "of the teacher's in --repository is faster",
            f"training: {self.step_s:.3g} s for each optimiser step",
        ]


def estimate(config: DistillConfig, device: torch.device) -> Estimate:
    """Counts, and times the network with random weights.

    Args:
        config: The run.
        device: Where it would run.
    """
    unet = config.train_unet
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        meta = UNet(unet)
        meta(**_inputs(unet))
    parameters = sum(parameter.numel() for parameter in meta.parameters())
    with torch.device(device), torch.inference_mode():
        network, inputs = UNet(unet).eval(), _inputs(unet)
        seconds = min(_timed(network, inputs, device) for _ in range(TIMED))
    guided = 2 if unet.guidance_range is not None else 1
    return Estimate(
        parameters=parameters,
        teraflops=counter.get_total_flops() / 1e12,
        memory_gb=parameters * BYTES_PER_PARAMETER / 1e9,
        evaluation_s=seconds,
        pairs_s=config.pairs * config.teacher_steps * guided * seconds,
        step_s=config.batch_size * STEP_EVALUATIONS * seconds,
    )


def _inputs(unet: UNetConfig) -> dict[str, torch.Tensor]:
    """Of one image, on the default device."""
    inputs = {"x": torch.zeros(1, 3, unet.image_size, unet.image_size), "timesteps": torch.zeros(1)}
    sizes = {"identity": unet.identity_dim, "attributes": unet.attribute_dim}
    inputs |= {name: torch.zeros(1, size) for name, size in sizes.items() if size is not None}
    if unet.low_res_size is not None:
        inputs["low_res"] = torch.zeros(1, 3, unet.low_res_size, unet.low_res_size)
    if unet.guidance_range is not None:
        inputs["guidance"] = torch.ones(1)
    return inputs


def _timed(network: UNet, inputs: dict[str, torch.Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    network(**inputs)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
