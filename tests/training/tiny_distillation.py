"""A teacher, data and distillation runs small enough for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tiny_engines import random_unet
from tiny_training import face_arrays

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import Bundle, read_bundle, weights_hash, write_bundle
from id3pm.training.distillation.config import DistillConfig, student_network

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
    weights = [
        {name: value.numpy() for name, value in random_unet(config).state_dict().items()} for config in (BASE, SR)
    ]
    write_bundle(folder, bundle, *weights)
    return folder


def write_data(folder: Path) -> Path:
    """A data set of 16 px images."""
    shards.begin(folder, {"kind": "test", "id_vector_model": "none", "identity_dim": 8})
    shards.write_shard(folder, 0, face_arrays())
    return folder


def config_of(teacher: Path, stage: str = "base", steps: int = 2, **changes: object) -> DistillConfig:
    unet, diffusion = student_network(read_bundle(teacher), stage, steps, (1.0, 3.0))  # type: ignore[arg-type]
    config = DistillConfig(
        teacher="tiny-teacher",
        teacher_weights_sha256=weights_hash(teacher, stage),  # type: ignore[arg-type]
        unet=unet,
        diffusion=diffusion,
        train_size=unet.image_size,
        pairs=32,
        teacher_steps=2,
        identity_loss=0.0,
        feature_loss=1.0 if stage == "sr" else 0.0,
        batch_size=4,
        total_steps=4,
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]
