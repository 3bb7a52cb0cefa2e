"""Distribution matching distillation with the settings of DMD2 (Yin et al. 2024), at this size.

A second network, the fake score, learns to denoise the student's images. Where it and the teacher disagree about a
noised image of the student's, the student's distribution differs from the teacher's: their difference is the gradient.
The later steps are given the student's own images (backward simulation), and a critic on the frozen teacher's features
is trained beside it, as the GAN loss of DMD2. There is no regression to the teacher's images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from id3pm.config import DiffusionConfig
from id3pm.diffusion.schedule import respaced_schedule
from id3pm.training.distillation.loop import Distiller, parameter_groups
from id3pm.training.distillation.pairs import PairBatch
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.loss import HybridLoss
from id3pm.training.stepped_run import Losses

FAKE_UPDATES = 5
"""Updates of the fake score for each of the student: DMD2's two-time-scale rule. All on the images of this step, each
through other noise: images of their own would take as long again."""
LOWEST_LOG_SNR = -4.0
"""Noisier timesteps are left out: there an error of eps is more than seven times as large in the image."""
FAKE_FILE = "fake.pt"
LOWEST_SHARE = 0.02  # of the timesteps, as DMD


def matching_gradient(images: Tensor, fake: Tensor, real: Tensor) -> Tensor:
    """The gradient of distribution matching by the images, float32 [N, 3, S, S].

    The difference of the two scores, in images, over the mean distance of each image from the teacher's (Yin et al.
    2024, "One-step Diffusion with Distribution Matching Distillation", eq. 7 and 8, as their program has it).

    Args:
        images: The student's.
        fake: What the fake score makes of them through noise: the mean of the student's images.
        real: What the guided teacher makes of the same.
    """
    distance = (images - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    return (fake - real) / distance.clamp(min=1e-6)


def half_square(error: Tensor) -> Tensor:
    """The pixel loss whose gradient is the error: with targets `images - gradient` the gradient itself."""
    return 0.5 * error.square()


class Noising:
    """The timesteps at which scores are compared.

    Args:
        diffusion: The process.
    """

    def __init__(self, diffusion: DiffusionConfig) -> None:
        self._tables = HybridLoss(diffusion, learn_sigma=False)
        kept = respaced_schedule(diffusion, diffusion.diffusion_steps).alphas_cumprod
        log_snr = np.log(kept / (1.0 - kept))
        first = round(LOWEST_SHARE * diffusion.diffusion_steps)
        self.timesteps = torch.arange(first, int((log_snr >= LOWEST_LOG_SNR).sum()))

    def drawn(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noised images [N, 3, S, S], their timesteps int64 [N], and the noise."""
        t = self.timesteps[torch.randint(len(self.timesteps), (len(images),))]
        noise = torch.randn_like(images)
        return self._tables.q_sample(images, t, noise), t, noise

    def predicted(self, network: nn.Module, x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """The network's eps, float32 [N, 3, S, S]."""
        eps: Tensor = network(x, self._tables.timesteps(t), **conditions).float()
        return eps

    def x0(self, eps: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The images that eps stands for, not clipped."""
        return self._tables.predict_x0(eps, x, t)


def guided(teacher: Teacher, x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> Tensor:
    """What the guided teacher makes of noisy images at timesteps of their own, float32 [N, 3, S, S]."""
    timesteps = sorted(set(t.tolist()))
    places = np.array([len(timesteps) - 1 - timesteps.index(each) for each in t.tolist()])
    given = {name: value.numpy() for name, value in conditions.items()}
    scales = given.pop("guidance")
    return torch.from_numpy(teacher.guided(x.numpy(), tuple(timesteps), places, scales, given))


class MatchingDistiller(Distiller):
    """A run whose student is trained by distribution matching and the product's critic.

    Its losses need `half_square` as their pixel loss.

    Args:
        *given: See `Distiller`.
        fake: The fake score: another student with the teacher's weights, for it must know the guidance scale.
    """

    def __init__(self, *given: Any, fake: nn.Module) -> None:
        super().__init__(*given)
        self.noising = Noising(self.config.diffusion)
        groups = parameter_groups(fake)
        for group in groups:
            group["lr"] = self.config.learning_rate * group.get("speed", 1.0)
        self._fake = fake.to(memory_format=torch.channels_last).train()
        self._fake_optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, weight_decay=0.0, fused=True)

    def _backward(self, batch: PairBatch) -> Losses:
        steps, places = self.steps, batch.places
        with self._accelerator.autocast():
            x = steps.own_inputs(self.unet, batch)
        with self._accelerator.autocast():
            output = self._model(x, steps.at("timestep", places), **batch.conditions).float()
        predicted = steps.x0(x, output, places)
        images = predicted.detach()
        gradient = self.matching(images, batch.conditions)
        with self._accelerator.autocast():
            found = self._losses.judge(predicted, images - gradient, batch, self._critic, self.step)
        torch.autograd.backward(predicted, found.gradient)
        if found.critic is not None:
            self._accelerator.backward(found.critic)
        fake = [self.update_fake(images, batch.conditions) for _ in range(FAKE_UPDATES)]
        return {**{name: float(value) for name, value in found.terms.items()}, "fake": float(np.mean(fake))}

    def save(self) -> None:
        """See `Distiller.save`; the fake score lies beside the checkpoint."""
        state = {"fake": self._fake.state_dict(), "optimizer": self._fake_optimizer.state_dict()}
        torch.save(state, self._folder / FAKE_FILE)
        super().save()

    def resume(self) -> None:
        """See `Distiller.resume`."""
        super().resume()
        state = torch.load(self._folder / FAKE_FILE, weights_only=True)
        self._fake.load_state_dict(state["fake"])
        self._fake_optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def matching(self, images: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """`matching_gradient` of the student's images at timesteps drawn for each."""
        x, t, _ = self.noising.drawn(images)
        with self._accelerator.autocast():
            eps = self.noising.predicted(self._fake, x, t, conditions)
        return matching_gradient(images, self.noising.x0(eps, x, t), guided(self._teacher, x, t, conditions))

    def update_fake(self, images: Tensor, conditions: dict[str, Tensor]) -> float:
        """One optimiser step of the fake score on the student's images; its loss."""
        x, t, noise = self.noising.drawn(images)
        with self._accelerator.autocast():
            eps = self.noising.predicted(self._fake, x, t, conditions)
        loss = (eps - noise).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._fake.parameters(), self.config.grad_clip)
        self._fake_optimizer.step()
        self._fake_optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())
