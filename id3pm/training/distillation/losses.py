"""The losses of a student's images, and their gradient.

- Regression. Of a guided stage: to what the teacher itself predicts from the same noisy image, guidance included, one
  step at a time (Meng et al. 2023, stage one). So the student begins with what the teacher knows, and learns the scale.
  Of super-resolution: to the teacher's images and the true ones.
- Critic and features, on images of the last step (noise covers those before it): regression alone gives the mean of
  all images that the noise could mean, which is blurred.
- Identity: that of the FR model whose vectors the bundle takes. Judge a student by another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.config import DiffusionConfig
from id3pm.diffusion.schedule import respaced_schedule
from id3pm.face.stage import FaceStage
from id3pm.training.distillation.critic import Critic, critic_loss, feature_distance, teacher_loss
from id3pm.training.distillation.pairs import PairBatch
from id3pm.training.identity_loss import IdentityLoss
from id3pm.training.loss import HybridLoss
from id3pm.training.rollouts import found_alignments
from id3pm.unet.model import UNet

SEEN_LOG_SNR = (-1.0, 4.0)
"""Through how much noise the teacher's encoder looks at images: the image has a share of 0.27 .. 0.98."""
IDENTITY_EVERY = 2  # every other image has the identity loss: the FR model costs as much as the student
SMALL_ERROR = 0.03  # c of the pseudo-Huber loss: four of 255 levels
BALANCE_EVERY = 10  # optimiser steps between two measurements of the critic's gradient
BALANCE_RATE = 0.8  # weight of the old measurement
MOST_BALANCE = 100.0


@dataclasses.dataclass
class Judgement:
    """What the losses say of some images.

    Attributes:
        gradient: Of the student's losses by the images, float32 [N, 3, S, S].
        terms: The losses, means over the images.
        critic: The critic's loss, with a gradient to its heads; `None` without a critic.
    """

    gradient: Tensor
    terms: dict[str, Tensor]
    critic: Tensor | None


class StudentLosses(nn.Module):
    """Pixels, features of the teacher's encoder, identity, and the critic.

    Args:
        teacher: The teacher's network, frozen.
        diffusion: Its process.
        feature_loss: See `DistillConfig`.
        critic_share: `DistillConfig.critic`.
        identity: The identity loss, or `None`.
        stage: Finds the faces for it.
        identity_weight: `DistillConfig.identity_loss`.
        identity_centring: See `DistillConfig`.
        mean_vector: Mean of the ID vectors, float32 [D]; needed by the identity loss.
        pixel_loss: Of the difference between images and targets, by element; `None` for `pseudo_huber`.
        mean: A number's mean over all processes, which call it at the same step; `None` for one process.
    """

    def __init__(
        self,
        teacher: UNet,
        diffusion: DiffusionConfig,
        *,
        feature_loss: float,
        critic_share: float,
        identity: IdentityLoss | None = None,
        stage: FaceStage | None = None,
        identity_weight: float = 0.0,
        identity_centring: float = 0.0,
        mean_vector: Tensor | None = None,
        pixel_loss: Callable[[Tensor], Tensor] | None = None,
        mean: Callable[[float], float] | None = None,
    ) -> None:
        super().__init__()
        self._teacher = teacher.requires_grad_(False).eval()
        self._noising = HybridLoss(diffusion, learn_sigma=teacher.config.learn_sigma)
        kept = respaced_schedule(diffusion, diffusion.diffusion_steps).alphas_cumprod
        log_snr = torch.from_numpy(kept.copy()).logit()
        seen = ((log_snr >= SEEN_LOG_SNR[0]) & (log_snr <= SEEN_LOG_SNR[1])).nonzero()[:, 0]
        self.register_buffer("_seen", seen, persistent=False)
        self.register_buffer("_mean", torch.zeros(()) if mean_vector is None else mean_vector, persistent=False)
        self._identity, self._stage = identity, stage
        self._identity_weight, self._identity_centring = identity_weight, identity_centring
        self._feature_loss = feature_loss
        self._critic_share = critic_share
        self._pixel_loss = pixel_loss or pseudo_huber
        self._mean_over_processes = mean
        self.balance = 0.0  # factor on the critic's gradient, the same in all processes: a checkpoint has one

    def judge(
        self,
        predicted: Tensor,
        targets: Tensor,
        batch: PairBatch,
        critic: nn.Module | None,
        step: int,
    ) -> Judgement:
        """The losses of some images.

        Args:
            predicted: The student's images, float32 [N, 3, S, S]; their gradient is not followed further.
            targets: What they are regressed to.
            batch: Their pairs.
            critic: A `Critic`, perhaps wrapped for several processes.
            step: Number of the optimiser step.
        """
        images = predicted.detach().requires_grad_()
        final = (batch.places == batch.places.max()).nonzero()[:, 0]
        conditions = {name: value[final] for name, value in batch.conditions.items()}
        terms = {"pixels": self._pixel_loss(images - targets).mean()}
        total = terms["pixels"]
        if self._identity is not None and batch.alignments is not None:
            some = final[::IDENTITY_EVERY]
            terms["identity"] = self._distance(images[some], batch, some).mean()
            total = total + self._identity_weight * terms["identity"]
        paired = self._feature_loss > 0.0 and batch.truth is not None
        if critic is None and not paired:
            return Judgement(torch.autograd.grad(total, images)[0], _plain(terms, total), None)
        made, real = self._features(images[final], (targets if paired else batch.results)[final], conditions)
        if paired:
            terms["features"] = feature_distance(made, real).mean()
            total = total + self._feature_loss * terms["features"]
        if critic is None:
            return Judgement(torch.autograd.grad(total, images)[0], _plain(terms, total), None)
        heads = critic.module if hasattr(critic, "module") else critic
        assert isinstance(heads, Critic)
        guidance = conditions.get("guidance")
        gradient = self._balanced(images, total, teacher_loss(heads(made, guidance)), step)
        told = critic_loss(*_halves(critic, [one.detach() for one in real], [one.detach() for one in made], guidance))
        return Judgement(gradient, _plain({**terms, "critic": told}, total), told)

    def _balanced(self, images: Tensor, total: Tensor, fooled: Tensor, step: int) -> Tensor:
        """The gradient of both, the critic's scaled to its share of the other's norm (Esser et al. 2021, VQGAN)."""
        if step % BALANCE_EVERY and self.balance:
            return torch.autograd.grad(total + self.balance * fooled, images)[0]
        own = torch.autograd.grad(total, images, retain_graph=True)[0]
        critics = torch.autograd.grad(fooled, images)[0]
        wanted = min(self._critic_share * float(own.norm()) / max(float(critics.norm()), 1e-12), MOST_BALANCE)
        if self._mean_over_processes is not None:
            wanted = self._mean_over_processes(wanted)
        self.balance = BALANCE_RATE * self.balance + (1.0 - BALANCE_RATE) * wanted if self.balance else wanted
        return own + self.balance * critics

    def _features(
        self, images: Tensor, targets: Tensor, conditions: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Features of both through the same noise."""
        seen = self.get_buffer("_seen")
        t = seen[torch.randint(len(seen), (len(images),), device=seen.device)]
        noise = torch.randn_like(targets)
        given = {name: value for name, value in conditions.items() if name != "guidance"}
        both = [self._noising.q_sample(one, t, noise) for one in (images, targets)]
        timesteps = self._noising.timesteps(t)
        return self._teacher.features(both[0], timesteps, **given), self._teacher.features(both[1], timesteps, **given)

    def _distance(self, images: Tensor, batch: PairBatch, some: Tensor) -> Tensor:
        """1 - cosine similarity, in part after the mean vector is taken from both, as in the rollouts: [N].

        `images` are those of the rows `some`.

        Where the detector finds no face, the image is a blur yet, or lost: the crop that is known is taken.
        """
        assert self._identity is not None and self._stage is not None
        assert batch.alignments is not None and batch.jitter is not None
        clipped, wanted, mean = images.clamp(-1.0, 1.0), batch.conditions["identity"][some], self.get_buffer("_mean")
        alignments = found_alignments(self._stage, clipped, batch.alignments[some])
        moved = alignments[:, :, :2] @ batch.jitter[some]
        moved[:, :, 2] += alignments[:, :, 2]
        vectors = self._identity.embed(clipped, moved)
        whole = F.cosine_similarity(vectors, wanted, dim=1)
        centred = F.cosine_similarity(vectors - mean, wanted - mean, dim=1)
        return 1.0 - torch.lerp(whole, centred, self._identity_centring)


def pseudo_huber(error: Tensor) -> Tensor:
    """sqrt(e^2 + c^2) - c per element, so that small errors have small gradients (Song and Dhariwal 2024, eq. 8)."""
    return (error.square() + SMALL_ERROR**2).sqrt() - SMALL_ERROR


def _halves(
    critic: nn.Module, real: list[Tensor], made: list[Tensor], guidance: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The critic's logits for both, in one call: several processes exchange its gradients once."""
    both = [torch.cat(pair) for pair in zip(real, made, strict=True)]
    logits = critic(both, None if guidance is None else torch.cat([guidance, guidance]))
    count = len(real[0])
    return [one[:count] for one in logits], [one[count:] for one in logits]


def _plain(terms: dict[str, Tensor], total: Tensor) -> dict[str, Tensor]:
    return {"loss": total.detach(), **{name: value.detach() for name, value in terms.items()}}
