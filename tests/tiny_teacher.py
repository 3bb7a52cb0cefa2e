"""A bundle small enough to distil in tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tiny_bundle import arrays
from tiny_engines import random_unet

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.formats.bundle import Bundle, write_bundle

BASE = UNetConfig(
    image_size=16,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 1),
    attention_resolutions=(8,),
    identity_dim=8,
)
SR = UNetConfig(
    image_size=32,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 1),
    attention_resolutions=(),
    low_res_size=16,
)
DIFFUSION = DiffusionConfig(diffusion_steps=100)
FAST = SamplingOptions(sampler="ddim", eta=1.0, steps=3, spacing="logsnr", dynamic_threshold=0.0)


def write_teacher(folder: Path) -> Path:
    """A teacher's bundle with random weights."""
    bundle = Bundle(
        name="tiny-teacher",
        id_vector_model="none",
        identity_dim=8,
        attribute_set=None,
        base=BASE,
        base_diffusion=DIFFUSION,
        sr=SR,
        sr_diffusion=dataclasses.replace(DIFFUSION, noise_schedule="linear"),
        sampling=FAST,
        sr_sampling=dataclasses.replace(FAST, eta=0.0, guidance_scale=1.0, consistency=1.0),
        licence="MIT",
    )
    write_bundle(folder, bundle, *(arrays(random_unet(config)) for config in (BASE, SR)))
    return folder
