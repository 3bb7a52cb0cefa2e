"""The student's network: made of the teacher's weights, and evaluated at its own timesteps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.coefficients import StepPlan
from id3pm.diffusion.plans import student_plan
from id3pm.diffusion.start import first_input
from id3pm.errors import ConfigError
from id3pm.formats.bundle import Bundle
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.pairs import PairBatch
from id3pm.unet.model import UNet

RIDGE = 1e-3  # relative to the mean variance of the features


def from_teacher(config: DistillConfig, weights: dict[str, NDArray[np.float32]]) -> UNet:
    """The student with the teacher's weights; what embeds the guidance scale adds nothing at first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet(config.train_unet)
    state = unet.state_dict()
    taken = {name: torch.from_numpy(value) for name, value in weights.items()}
    for name in ("out.2.weight", "out.2.bias"):
        taken[name] = taken[name][: unet.config.out_channels]  # without the variance
    unet.load_state_dict({**state, **taken})
    return unet


def require_same_network(config: DistillConfig, student: Bundle) -> None:
    """Refuses a student that a run cannot start from.

    Raises:
        ConfigError: It is another network, or its network predicts something else; the message names the field.
    """
    base = config.stage == "base"
    found = (student.base, student.base_diffusion) if base else (student.sr, student.sr_diffusion)
    for wanted, given in zip((config.unet, config.diffusion), found, strict=True):
        for name, value in vars(wanted).items():
            # The mean colour at which sampling begins is no property of the weights; other timesteps can be learned.
            if name not in ("data_mean", "student_timesteps") and getattr(given, name) != value:
                raise ConfigError(
                    f"bundle {student.name}: its {config.stage} stage has {name}={getattr(given, name)!r}, this run "
                    f"has {value!r}: start from a student of the same network and prediction"
                )


class StudentSteps:
    """The coefficients of the student's steps, noisiest first, on the device of its images.

    Args:
        diffusion: The student's process.
        device: Where its images are.
    """

    def __init__(self, diffusion: DiffusionConfig, device: torch.device) -> None:
        count = len(diffusion.student_timesteps or ())
        options = SamplingOptions(sampler="student", steps=count, dynamic_threshold=0.0)
        plan: StepPlan = student_plan(diffusion, options)
        self._start = plan.start
        self._tables = {
            name: torch.from_numpy(getattr(plan, name).copy()).to(device)
            for name in ("timestep", "x0_from_x", "x0_from_output", "c_x0", "std")
        }

    def at(self, name: str, places: Tensor) -> Tensor:
        """A coefficient of each row, [N, 1, 1, 1]; the timesteps as [N]."""
        values = self._tables[name][places]
        return values if name == "timestep" else values.view(-1, 1, 1, 1)

    def start(self, noise: Tensor, low_res: Tensor | None = None) -> Tensor:
        """What the first step is given for noise [N, 3, S, S] and, in super-resolution, small images [N, 3, s, s]."""
        first: Tensor = first_input(noise, self._start, low_res)
        return first

    def x0(self, x: Tensor, output: Tensor, places: Tensor) -> Tensor:
        """The images that the network's output stands for, not clipped."""
        return self.at("x0_from_x", places) * x - self.at("x0_from_output", places) * output

    def wanted(self, x: Tensor, x0: Tensor, places: Tensor) -> Tensor:
        """The output that would stand for these images."""
        return (self.at("x0_from_x", places) * x - x0) / self.at("x0_from_output", places)

    def inputs(self, batch: PairBatch) -> Tensor:
        """What the network is given where every row goes on from the teacher's images, float32 [N, 3, S, S]."""
        rows = torch.arange(len(batch.places), device=batch.places.device)
        before = (batch.places - 1).clamp(min=0)
        later = self.renoised(batch.results, batch.noises[batch.places, rows], before)
        return torch.where((batch.places > 0).view(-1, 1, 1, 1), later, self._start_of(batch))

    def _start_of(self, batch: PairBatch) -> Tensor:
        return self.start(batch.noises[0], batch.conditions.get("low_res"))

    def renoised(self, images: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """What the step after step `places` is given, for the images of that step."""
        return self.at("c_x0", places) * images.clamp(-1.0, 1.0) + self.at("std", places) * noise

    @torch.no_grad()
    def own_inputs(self, unet: nn.Module, batch: PairBatch) -> Tensor:
        """What the network is given where the rows `own` go on from the student's own images."""
        x = self.inputs(batch)
        for place in range(int(batch.places[batch.own].max()) if batch.own.any() else 0):
            rows = (batch.own & (batch.places > place)).nonzero()[:, 0]
            at = torch.full_like(rows, place)
            now = self._start_of(batch)[rows] if place == 0 else x[rows]
            given = {name: value[rows] for name, value in batch.conditions.items()}
            images = self.x0(now, unet(now, self.at("timestep", at), **given).float(), at)
            x[rows] = self.renoised(images, batch.noises[place + 1, rows], at)
        return x


@torch.no_grad()
def fit_last_layer(unet: UNet, steps: StudentSteps, batches: list[PairBatch]) -> None:
    """Sets the last convolution to what predicts the teacher's images best, by ridge regression on the features.

    For students of v: the teacher's predicts eps, which is another output. All other layers stay.

    Args:
        unet: The student, with the teacher's weights.
        steps: Its steps.
        batches: Pairs at different steps.
    """
    last = unet.out[2]
    assert isinstance(last, nn.Conv2d)
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    size = last.in_channels * 9 + 1
    products, targets = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 3, dtype=torch.float64)
    for batch in batches:
        x = steps.inputs(batch)
        unet(x, steps.at("timestep", batch.places), **batch.conditions)
        wanted = steps.wanted(x, batch.results, batch.places)
        columns = F.unfold(seen.pop().float(), 3, padding=1).transpose(1, 2).reshape(-1, size - 1)
        columns = F.pad(columns, (0, 1), value=1.0).double().cpu()
        products += columns.T @ columns
        targets += columns.T @ wanted.permute(0, 2, 3, 1).reshape(-1, 3).double().cpu()
    hook.remove()
    products += RIDGE * products.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(products, targets).T.float()
    last.weight.copy_(solution[:, :-1].reshape(last.weight.shape))
    assert last.bias is not None
    last.bias.copy_(solution[:, -1])
