"""Data and distillation runs small enough for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tiny_training import face_arrays

from id3pm.formats import datasets as shards
from id3pm.formats.bundle import read_bundle, weights_hash
from id3pm.training.distillation.config import DistillConfig, student_network


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
