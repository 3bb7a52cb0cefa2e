"""A bundle whose networks weigh nothing, for measuring everything else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from id3pm.bundle import Bundle, write_bundle
from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_BASE_SAMPLING, PAPER_SR_DIFFUSION, PAPER_SR_SAMPLING, UNetConfig
from networks import TINY_SR, random_unet

BASE = UNetConfig(
    image_size=64, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), identity_dim=128
)


def write_tiny_bundle(folder: Path) -> None:
    """Writes it: the shapes of the demo bundle, random weights."""
    bundle = Bundle(
        name="tiny",
        id_vector_model="sface",
        identity_dim=BASE.identity_dim or 0,
        attribute_set=None,
        base=BASE,
        base_diffusion=PAPER_BASE_DIFFUSION,
        sr=TINY_SR,
        sr_diffusion=PAPER_SR_DIFFUSION,
        sampling=dataclasses.replace(PAPER_BASE_SAMPLING, steps=10),
        sr_sampling=dataclasses.replace(PAPER_SR_SAMPLING, steps=4),
        licence="none",
    )
    tensors = [
        {key: tensor.numpy() for key, tensor in random_unet(stage).state_dict().items()}
        for stage in (bundle.base, bundle.sr)
    ]
    write_bundle(folder, bundle, *tensors, storage="fp16")
