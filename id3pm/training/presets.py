"""Configuration of a training run: network, diffusion, data, optimiser; frozen, and stored in every checkpoint."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal

from id3pm.attributes import FREE_SETS, AttributeSet, fields_of
from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    DiffusionConfig,
    UNetConfig,
    require_all,
)

StageName = Literal["base", "sr"]
Precision = Literal["no", "fp16", "bf16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Defaults are the paper's (Kansy et al. 2023, supplement, Table 2) for the base model.

    Attributes:
        unet: The network as it will be deployed.
        diffusion: Its noising process.
        train_size: Size in pixels of the images it is trained on. A super-resolution network may be trained on crops
            smaller than `unet.image_size` (it is convolutional); the low-resolution side shrinks by the same factor.
        batch_size: Images per optimiser step, over all processes.
        total_steps: Optimiser steps.
        learning_rate: Of AdamW without weight decay.
        warmup_steps: The learning rate rises linearly over these; 0 for none.
        ema_rate: See `id3pm.training.ema.Ema`.
        ema_warmup: See `id3pm.training.ema.Ema`.
        condition_dropout: Share of images that are trained with the null vector instead of their condition.
        joint_dropout: Where the ID vector is dropped, drop the attributes, too: guidance evaluates the network without
            both, and two independent draws of a tenth would show it that in a hundredth of the images.
        field_dropout: Share of the images that are trained with a random part of their attribute fields alone; how many
            fields is uniform from none to all. A network that has seen this takes partly specified vectors.
        flip: Mirror every other image at random, with the ID vector and the attributes of the mirrored image.
        tilt: Turn images in their plane where the roll is given to the network, half of them, to a roll of up to this
            many degrees either way: data sets of aligned faces have next to none. 0 does not.
        photo_share: Share of a super-resolution batch that is cut from photographs instead of the data set.
        grad_clip: Largest L2 norm of the gradient; `None` does not clip.
        min_snr_gamma: See `id3pm.training.loss.HybridLoss`.
        snr_floor: See `id3pm.training.loss.HybridLoss`.
        identity_loss: Weight of `id3pm.training.identity_loss.IdentityLoss` on the predicted image, times the share
            of the image in the noisy one (alphas_cumprod); 0, the paper's, needs no FR model.
        landmark_loss: Weight of `id3pm.training.landmark_loss.LandmarkLoss`, for attributes; 0, the paper's, needs no
            landmark network.
        identity_jitter: Factor on `id3pm.training.variation.JITTER`, by which the crops that the identity loss sees
            vary.
        rollouts: Rows beside each batch, over all processes, that the network is generating; see
            `id3pm.training.rollouts`. They are taught by `rollout_loss` alone.
        rollout_loss: Weight of their identity loss.
        rollout_centring: Share of it that compares vectors without their common mean; see
            `id3pm.training.rollouts.Rollouts`.
        altered_vectors: Share of the rollouts whose ID vector no training image has; see
            `id3pm.training.variation.altered_vectors`.
        identity_gain: Factor on the initial weights of the first layer that sees the ID vector; see
            `id3pm.training.initial_weights.build`.
        attribute_set: Of the data set's attributes, where `unet.attribute_dim` is set.
        attribute_speed: Factor on the learning rate of the layers that embed the attributes, where the rest of the
            network has been trained before.
        seed: Of everything random: initial weights, order of images, flips, time steps, noise, dropout.
        accumulation: Passes that a step's images are divided into: less memory, the same step.
        gradient_checkpointing: See `id3pm.unet.model.UNet`.
        precision: Mixed precision: bf16 or fp16 autocast, or none.
        channels_last: Weights and activations are stored with the channels innermost, as convolutions in half precision
            take them.
        fused_adamw: AdamW updates all weights in one kernel; else as PyTorch chooses.
        foreach_ema: The average of all weights is updated in one call; else tensor by tensor.
    """

    unet: UNetConfig
    diffusion: DiffusionConfig
    train_size: int = 64
    batch_size: int = 64
    total_steps: int = 100_000
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    ema_rate: float = 0.9999
    ema_warmup: bool = False
    condition_dropout: float = 0.1
    joint_dropout: bool = False
    field_dropout: float = 0.0
    flip: bool = False
    tilt: float = 0.0
    photo_share: float = 0.0
    grad_clip: float | None = None
    min_snr_gamma: float | None = None
    snr_floor: float = 0.0
    identity_loss: float = 0.0
    landmark_loss: float = 0.0
    identity_jitter: float = 0.0
    rollouts: int = 0
    rollout_loss: float = 0.0
    rollout_centring: float = 0.0
    altered_vectors: float = 0.0
    identity_gain: float = 1.0
    attribute_set: AttributeSet | None = None
    attribute_speed: float = 1.0
    seed: int = 0
    accumulation: int = 1
    gradient_checkpointing: bool = False
    precision: Precision = "fp16"
    channels_last: bool = True
    fused_adamw: bool = True
    foreach_ema: bool = True

    def __post_init__(self) -> None:
        factor = self.unet.image_size / self.train_size
        rules = {
            f"batch_size={self.batch_size}, total_steps={self.total_steps}: must be at least 1": (
                min(self.batch_size, self.total_steps) >= 1
            ),
            f"accumulation={self.accumulation}: must divide batch_size={self.batch_size}, and be 1 with rollouts": (
                self.accumulation >= 1
                and self.batch_size % self.accumulation == 0
                and (self.accumulation == 1 or self.rollouts == 0)
            ),
            f"learning_rate={self.learning_rate}: must be positive": self.learning_rate > 0,
            f"warmup_steps={self.warmup_steps}: must be 0 or more": self.warmup_steps >= 0,
            f"ema_rate={self.ema_rate}: must be in [0, 1)": 0.0 <= self.ema_rate < 1.0,
            f"condition_dropout={self.condition_dropout}: must be in [0, 1]": 0.0 <= self.condition_dropout <= 1.0,
            f"photo_share={self.photo_share}: must be in [0, 1]": 0.0 <= self.photo_share <= 1.0,
            f"field_dropout={self.field_dropout}: must be in [0, 1], and 0 unless the attribute set is one of "
            f"{', '.join(FREE_SETS)}": (
                self.field_dropout == 0 or (0.0 < self.field_dropout <= 1.0 and self.attribute_set in FREE_SETS)
            ),
            f"attribute_set={self.attribute_set}: does not fit unet.attribute_dim={self.unet.attribute_dim}": (
                self.unet.attribute_dim == (None if self.attribute_set is None else len(fields_of(self.attribute_set)))
            ),
            f"tilt={self.tilt}: must be in [0, 90], and 0 without an attribute set": (
                self.tilt == 0 or (0.0 < self.tilt <= 90.0 and self.attribute_set is not None)
            ),
            f"snr_floor={self.snr_floor}: must be 0 or more": self.snr_floor >= 0.0,
            f"identity_loss={self.identity_loss}: must be 0 or more, and 0 without ID vectors": (
                self.identity_loss == 0 or (self.identity_loss > 0 and self.unet.identity_dim is not None)
            ),
            f"identity_jitter={self.identity_jitter}: must be 0 or more, and 0 without identity_loss": (
                self.identity_jitter == 0 or (self.identity_jitter > 0 and self.identity_loss > 0)
            ),
            f"rollouts={self.rollouts}, rollout_loss={self.rollout_loss}: must be 0 or more, both or neither, and 0 "
            "without identity_loss or with attributes": (
                self.rollouts == self.rollout_loss == 0
                or (min(self.rollouts, self.rollout_loss, self.identity_loss) > 0 and self.unet.attribute_dim is None)
            ),
            f"rollout_centring={self.rollout_centring}: must be in [0, 1], and 0 without rollouts": (
                self.rollout_centring == 0 or (0.0 < self.rollout_centring <= 1.0 and self.rollouts > 0)
            ),
            f"altered_vectors={self.altered_vectors}: must be in [0, 1], and 0 without rollouts": (
                self.altered_vectors == 0 or (0.0 < self.altered_vectors <= 1.0 and self.rollouts > 0)
            ),
            f"landmark_loss={self.landmark_loss}: must be 0 or more, and 0 without attributes": (
                self.landmark_loss == 0 or (self.landmark_loss > 0 and self.unet.attribute_dim is not None)
            ),
            "diffusion.prediction must be eps and diffusion.student_timesteps null: students come from id3pm distill": (
                self.diffusion.prediction == "eps" and self.diffusion.student_timesteps is None
            ),
            f"train_size={self.train_size}: a base network is trained at its image_size={self.unet.image_size}": (
                factor == 1 or self.unet.low_res_size is not None
            ),
            f"train_size={self.train_size}: must divide image_size and low_res_size of the network": (
                factor.is_integer() and (self.unet.low_res_size or 0) % factor == 0
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


DEMO_BASE_UNET = UNetConfig(
    image_size=64,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 1, 3, 4),
    attention_resolutions=(16, 8),
    num_head_channels=32,
    resblock_updown=True,
    norm_groups=8,
    use_new_attention_order=True,
    identity_dim=128,
)
# 256 px is where the cost lies: few channels there, no attention, plain resampling.
DEMO_SR_UNET = UNetConfig(
    image_size=256,
    num_channels=16,
    num_res_blocks=1,
    channel_mult=(1, 2, 4, 4),
    attention_resolutions=(),
    num_head_channels=32,
    conv_resample=False,
    norm_groups=4,
    low_res_size=64,
)
DEMO_ATTRIBUTES: Mapping[str, Any] = types.MappingProxyType(
    {
        "joint_dropout": True,
        "field_dropout": 0.8,
        "tilt": 25.0,
        "landmark_loss": 0.1,
        "attribute_speed": 5.0,
    }
)
"""What the demo preset adds for attribute set `landmarks`."""
PAPER_BASE = TrainConfig(unet=PAPER_BASE_64, diffusion=PAPER_BASE_DIFFUSION)
PAPER_SR = TrainConfig(
    unet=PAPER_SR_256, diffusion=PAPER_SR_DIFFUSION, train_size=256, total_steps=50_000, condition_dropout=0.0
)
# What differs from the paper, and why: the run is hundreds of times shorter, on a CPU, with a network 60 times smaller.
DEMO_BASE = TrainConfig(
    unet=DEMO_BASE_UNET,
    diffusion=PAPER_BASE_DIFFUSION,
    batch_size=16,
    learning_rate=4e-4,
    warmup_steps=200,
    ema_warmup=True,
    flip=True,
    grad_clip=1.0,
    min_snr_gamma=5.0,
    snr_floor=0.1,
    identity_loss=0.03,
    identity_gain=128**0.5,
    precision="no",
)
DEMO_SR = TrainConfig(
    unet=DEMO_SR_UNET,
    diffusion=PAPER_SR_DIFFUSION,
    train_size=64,
    batch_size=16,
    total_steps=50_000,
    learning_rate=5e-4,
    warmup_steps=200,
    ema_warmup=True,
    condition_dropout=0.0,
    flip=True,
    photo_share=0.5,
    grad_clip=1.0,
    snr_floor=0.1,
    precision="no",
)
PRESETS: Mapping[tuple[str, str], TrainConfig] = types.MappingProxyType(
    {
        ("demo", "base"): DEMO_BASE,
        ("demo", "sr"): DEMO_SR,
        ("paper", "base"): PAPER_BASE,
        ("paper", "sr"): PAPER_SR,
    }
)


EXECUTION = ("accumulation", "gradient_checkpointing", "channels_last", "fused_adamw", "foreach_ema")
"""Fields that change how a step is computed, and none of its results but for rounding."""


def deviations(config: TrainConfig) -> dict[str, object]:
    """What a run does otherwise than the paper: `{field: its value}`, for the training card."""
    paper = PRESETS["paper", config.stage]
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("unet", "diffusion", "seed", *EXECUTION)
        and getattr(config, field.name) != getattr(paper, field.name)
    }
