"""A data set and runs small enough for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, UNetConfig
from id3pm.training.presets import TrainConfig

TINY_BASE = TrainConfig(
    unet=UNetConfig(
        image_size=16,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(8,),
        dropout=0.1,
        identity_dim=8,
    ),
    diffusion=DiffusionConfig(),
    train_size=16,
    batch_size=8,
    total_steps=6,
    learning_rate=1e-3,
    warmup_steps=3,
    ema_warmup=True,
    flip=True,
    grad_clip=1.0,
    precision="no",
)
TINY_SR = TrainConfig(
    unet=UNetConfig(
        image_size=64,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1,),
        attention_resolutions=(),
        low_res_size=16,
    ),
    diffusion=DiffusionConfig(noise_schedule="linear"),
    train_size=16,
    batch_size=8,
    total_steps=3,
    precision="no",
)


def face_arrays(count: int = 60) -> dict[str, NDArray[Any]]:
    """Noise images [count, 16, 16, 3] and unit vectors [count, 8], all different."""
    rng = np.random.default_rng(0)
    vectors, flipped = (rng.standard_normal((count, 8)).astype(np.float32) for _ in range(2))
    return {
        "images": rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
        "vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "flipped_vectors": flipped / np.linalg.norm(flipped, axis=1, keepdims=True),
        "detections": np.zeros((count, 15), np.float32),
        "index": np.arange(count, dtype=np.int64),
    }
