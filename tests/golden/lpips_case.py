"""AlexNet and channel weights with made-up numbers, by the published names, and three pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

SHAPES = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


def case_backbone() -> dict[str, torch.Tensor]:
    """The convolutions of torchvision's AlexNet; RandomState's stream is frozen by numpy."""
    random = np.random.RandomState(7)
    weights = {}
    for number, shape in SHAPES.items():
        values = random.randn(*shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        weights[f"features.{number}.weight"] = torch.from_numpy(values.astype(np.float32))
        weights[f"features.{number}.bias"] = torch.from_numpy(0.1 * random.randn(shape[0]).astype(np.float32))
    return weights


def case_channels() -> dict[str, torch.Tensor]:
    """What LPIPS learned."""
    random = np.random.RandomState(8)
    return {
        f"lin{level}.model.1.weight": torch.from_numpy(random.rand(1, shape[0], 1, 1).astype(np.float32))
        for level, shape in enumerate(SHAPES.values())
    }


def case_images() -> NDArray[np.uint8]:
    """uint8 [3, 64, 64, 3]."""
    return np.random.RandomState(9).randint(0, 256, (3, 64, 64, 3), np.uint8)
