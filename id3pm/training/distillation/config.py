"""Configuration of a distillation run: the student's network, its few timesteps, losses and optimiser."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Literal

from id3pm.config import DiffusionConfig, UNetConfig, require_all
from id3pm.diffusion.schedule import nearest_timestep
from id3pm.errors import ConfigError
from id3pm.formats.bundle import Bundle
from id3pm.training.presets import StageName

StudentSteps = Literal[1, 2, 4]
StudentPrecision = Literal["no", "bf16"]

LOG_SNR: Mapping[int, tuple[float, ...]] = types.MappingProxyType(
    {1: (-3.2,), 2: (0.7, -3.2), 4: (1.0, -0.4, -1.8, -3.2)}
)
"""Log SNR, log(abar / (1 - abar)), of a student's timesteps by their number, cleanest first. The first step is given
pure noise at log SNR -3.2, where the image has a share of 0.04: nearer to pure noise an error of eps becomes too large
in the image (5 times here, 8 times at -4.2), and colours drift; the teacher's images are as good from either. The last
is given little noise: from there one evaluation of the teacher, guidance included, is nearly sharp, so there is little
to learn (`benchmarks/student_timesteps.py`)."""
SR_LOG_SNR: Mapping[int, tuple[float, ...]] = types.MappingProxyType(
    {1: (0.5,), 2: (2.0, 0.0), 4: (2.0, 1.0, 0.0, -1.0)}
)
"""The same of super-resolution, which starts from the enlarged small image through noise: that image has most of what
noise at log SNR -3.2 would hide, and an error of eps counts less than once in the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """One distillation run.

    Attributes:
        teacher: Name of the teacher's bundle.
        teacher_weights_sha256: Of its stage.
        unet: The student's network.
        diffusion: The student's process, with its timesteps.
        train_size: Size in pixels of the images it is trained on; see `TrainConfig.train_size`.
        pairs: Results of the teacher that are made ahead.
        teacher_steps: Steps in which the teacher makes an image.
        target_steps: Steps in which the teacher finishes the noisy image of the student's last step: the image that
            this step is regressed to. Where much noise is left, 1 is blurred.
        altered_vectors: Share of ID vectors that no image has; see `id3pm.training.variation.altered_vectors`.
        own_share: Share of later steps that go on from the student's own image instead of the teacher's.
        feature_loss: For super-resolution: weight of the distance in the features of the teacher's encoder, beside the
            pixels' weight of 1.
        identity_loss: Weight of the identity loss; 0 needs no FR model.
        identity_centring: See `TrainConfig.rollout_centring`.
        identity_jitter: See `TrainConfig.identity_jitter`.
        critic: Share of the critic's gradient, relative to that of the other losses; 0 trains none.
        critic_learning_rate: Of the critic.
        batch_size: Images per optimiser step, over all processes.
        total_steps: Optimiser steps.
        learning_rate: Of AdamW without weight decay.
        warmup_steps: The learning rate rises linearly over these.
        ema_rate: See `id3pm.training.ema.Ema`, with its warm-up.
        grad_clip: Largest L2 norm of the gradient.
        seed: Of everything random.
        gradient_checkpointing: See `id3pm.unet.model.UNet`.
        precision: Mixed precision: bf16 autocast, or none.
    """

    teacher: str
    teacher_weights_sha256: str
    unet: UNetConfig
    diffusion: DiffusionConfig
    train_size: int
    pairs: int = 10_000
    teacher_steps: int = 8
    target_steps: int = 1
    altered_vectors: float = 0.3
    own_share: float = 1.0
    feature_loss: float = 0.0
    identity_loss: float = 0.02
    identity_centring: float = 0.5
    identity_jitter: float = 1.0
    critic: float = 0.3
    critic_learning_rate: float = 5e-4
    batch_size: int = 8
    total_steps: int = 20_000
    learning_rate: float = 5e-5
    warmup_steps: int = 20
    ema_rate: float = 0.998
    grad_clip: float = 1.0
    seed: int = 0
    gradient_checkpointing: bool = False
    precision: StudentPrecision = "no"

    def __post_init__(self) -> None:
        conditional = self.unet.identity_dim is not None
        rules = {
            "diffusion.student_timesteps must be set": self.diffusion.student_timesteps is not None,
            f"pairs={self.pairs}, batch_size={self.batch_size}, total_steps={self.total_steps}, "
            f"teacher_steps={self.teacher_steps}, target_steps={self.target_steps}: must be at least 1": (
                min(self.pairs, self.batch_size, self.total_steps, self.teacher_steps, self.target_steps) >= 1
            ),
            f"learning_rate={self.learning_rate}, critic_learning_rate={self.critic_learning_rate}: must be positive": (
                min(self.learning_rate, self.critic_learning_rate) > 0
            ),
            f"ema_rate={self.ema_rate}: must be in [0, 1)": 0.0 <= self.ema_rate < 1.0,
            f"own_share={self.own_share}, altered_vectors={self.altered_vectors}: must be in [0, 1]": (
                0.0 <= self.own_share <= 1.0 and 0.0 <= self.altered_vectors <= 1.0
            ),
            f"feature_loss={self.feature_loss}, critic={self.critic}: must be 0 or more": (
                min(self.feature_loss, self.critic) >= 0.0
            ),
            f"feature_loss={self.feature_loss}: belongs to super-resolution; leave it at 0": (
                self.feature_loss == 0.0 or self.stage == "sr"
            ),
            f"identity_loss={self.identity_loss}: must be 0 or more, and 0 without ID vectors": (
                self.identity_loss == 0 or (self.identity_loss > 0 and conditional)
            ),
        }
        require_all(rules)

    @property
    def stage(self) -> StageName:
        """Which stage of a bundle this run makes."""
        return "base" if self.unet.low_res_size is None else "sr"

    @property
    def train_unet(self) -> UNetConfig:
        """The same weights at `train_size`; see `UNetConfig.at_size`."""
        return self.unet.at_size(self.train_size)

    @property
    def steps(self) -> int:
        """Steps of the student."""
        return len(self.diffusion.student_timesteps or ())


def student_network(
    bundle: Bundle, stage: StageName, steps: int, guidance_range: tuple[float, float]
) -> tuple[UNetConfig, DiffusionConfig]:
    """The student's network and process: the teacher's, without variance, at few timesteps.

    A base student of one step predicts v: in pure noise an error of eps is five times as large in the image. One of
    more steps predicts eps like its teacher, and begins as that: what the first step gets wrong, the noise before the
    next covers. Super-resolution starts from the small image, so any number of steps does.

    Args:
        bundle: The teacher.
        stage: Which stage.
        steps: 1, 2 or 4.
        guidance_range: Lowest and highest guidance scale, for a stage with conditions.

    Raises:
        ConfigError: The teacher is a student, or its process has too few timesteps.
    """
    unet, diffusion = (bundle.base, bundle.base_diffusion) if stage == "base" else (bundle.sr, bundle.sr_diffusion)
    if diffusion.student_timesteps is not None or diffusion.prediction != "eps":
        raise ConfigError(f"bundle {bundle.name}: its {stage} stage is a student already; give the teacher's bundle")
    base = stage == "base"
    values = LOG_SNR[steps] if base else SR_LOG_SNR[steps]
    timesteps = tuple(sorted(nearest_timestep(diffusion, value) for value in values))
    conditional = unet.identity_dim is not None or unet.attribute_dim is not None
    return (
        dataclasses.replace(
            unet, learn_sigma=False, dropout=0.0, guidance_range=guidance_range if conditional else None
        ),
        dataclasses.replace(
            diffusion,
            prediction="v" if base and steps == 1 else "eps",
            student_timesteps=timesteps,
            student_start="noise" if base else "low_res",
        ),
    )
