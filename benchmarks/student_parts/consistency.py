"""Consistency distillation (Song et al. 2023, algorithm 2), guidance included as in LCM (Luo et al. 2023).

The student learns that noisy images on one trajectory of the teacher's guided ODE are of one image. Its image of a
noisy image is regressed to the image that its average gives one step further on the trajectory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.plans import plan_from_schedule
from id3pm.diffusion.schedule import kept_schedule, steps_from
from id3pm.training.distillation.loop import Distiller
from id3pm.training.distillation.losses import pseudo_huber
from id3pm.training.distillation.pairs import PairBatch
from id3pm.training.stepped_run import Losses

BOUNDARIES = 24  # of the trajectory, equally spaced in log SNR, besides the student's own timesteps and the clean end
CLEAN = {"timestep": 0.0, "x0_from_x": 1.0, "x0_from_output": 0.0}


class Trajectory:
    """The boundaries of the teacher's ODE from a student's noisiest timestep to the image, noisiest first.

    The last place is the clean end, abar = 1. There x0 = x / sqrt(abar) - sqrt(1 / abar - 1) eps is x itself, whatever
    the network predicts: prediction of eps has the boundary condition of consistency models.

    Args:
        diffusion: The student's process, with its timesteps.
        boundaries: How many are equally spaced in log SNR.
    """

    def __init__(self, diffusion: DiffusionConfig, boundaries: int = BOUNDARIES) -> None:
        own = diffusion.student_timesteps or ()
        self.timesteps = tuple(sorted({*steps_from(diffusion, own[-1], boundaries), *own}))
        schedule = kept_schedule(diffusion, self.timesteps)
        steps = plan_from_schedule(schedule, SamplingOptions(sampler="ddim"), learn_sigma=False)
        tables = {name: getattr(steps, name) for name in ("timestep", "x0_from_x", "x0_from_output", "c_x", "c_x0")}
        tables |= {name: np.append(tables[name], value) for name, value in CLEAN.items()}
        tables["image"] = schedule.sqrt_alphas_cumprod[::-1]
        tables["noise"] = schedule.sqrt_one_minus_alphas_cumprod[::-1]
        self._tables = {name: torch.from_numpy(values.astype(np.float32)) for name, values in tables.items()}

    def __len__(self) -> int:
        """Boundaries without the clean end."""
        return len(self.timesteps)

    def at(self, name: str, places: Tensor) -> Tensor:
        """A coefficient of each row, [N, 1, 1, 1]; the timesteps as [N]."""
        values = self._tables[name][places]
        return values if name == "timestep" else values.view(-1, 1, 1, 1)

    def noised(self, images: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """q(x_t | x_0), [N, 3, S, S]."""
        return self.at("image", places) * images + self.at("noise", places) * noise

    def x0(self, x: Tensor, eps: Tensor, places: Tensor) -> Tensor:
        """The image that eps stands for, not clipped; at the clean end `x`."""
        return self.at("x0_from_x", places) * x - self.at("x0_from_output", places) * eps

    def after(self, x: Tensor, x0: Tensor, places: Tensor) -> Tensor:
        """The next noisy image of the ODE (ddim with eta 0), where the teacher predicts `x0`."""
        return self.at("c_x", places) * x + self.at("c_x0", places) * x0


class ConsistencyDistiller(Distiller):
    """A run whose student is trained for consistency alone; optimiser, average and batches are the product's."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.trajectory = Trajectory(self.config.diffusion)

    def _backward(self, batch: PairBatch) -> Losses:
        line = self.trajectory
        places = torch.randint(len(line), (len(batch.results),))
        noise = torch.randn_like(batch.results)
        # The noisiest place sees what the student is given in use: noise without an image.
        first = (places == 0).view(-1, 1, 1, 1)
        x = torch.where(first, self.steps.start(noise), line.noised(batch.results, noise, places))
        targets = self.targets(x, places, batch.conditions)
        with self._accelerator.autocast():
            output = self._model(x, line.at("timestep", places), **batch.conditions).float()
        loss = pseudo_huber(line.x0(x, output, places) - targets).mean()
        self._accelerator.backward(loss)
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def targets(self, x: Tensor, places: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """The average's images one step of the teacher's guided ODE further, float32 [N, 3, S, S] in [-1, 1].

        Args:
            x: Noisy images.
            places: Where they are on the trajectory, [N].
            conditions: Keyword arguments of the student.
        """
        line = self.trajectory
        given = {name: value.numpy() for name, value in conditions.items()}
        scales = given.pop("guidance")
        x0 = self._teacher.guided(x.numpy(), line.timesteps, places.numpy(), scales, given)
        after = line.after(x, torch.from_numpy(x0), places)
        with self._accelerator.autocast():
            inputs = (after, line.at("timestep", places + 1))
            eps = functional_call(self.unet, self._ema.average, inputs, conditions).float()
        return line.x0(after, eps, places + 1).clamp(-1.0, 1.0)
