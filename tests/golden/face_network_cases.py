"""What the golden values of the FR networks are computed on: made-up weights and crops, the same on any machine."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

CROP_SIZES: Mapping[str, tuple[int, int]] = {
    "facenet": (160, 160),
    "adaface": (112, 112),
    "arcface-razzhigaev": (112, 112),
    "from": (112, 96),
}
"""Height and width of the pictures that each network takes."""
CROPS = 2


GAINS = {"facenet": 6.0}
"""Of matrices: three times their variance times their fan-in. Plain layers need more than residual ones."""


def made_up_state(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """Weights by key. Matrices are scaled by their fan-in, norms and slopes lie around 1, so no activation vanishes."""
    gain = GAINS.get(name, 1.5)
    state = {}
    for key, shape in shapes.items():
        values = uniform(key, shape)
        if len(shape) > 1:
            values *= np.float32(np.sqrt(gain / np.prod(shape[1:])))
        elif key.endswith(("weight", "running_var")):
            values = 1 + np.float32(0.3) * values
        else:
            values *= np.float32(0.2)
        state[key] = values
    return state


def made_up_crops(name: str) -> npt.NDArray[np.uint8]:
    """uint8 [CROPS, H, W, 3], RGB: noise over a gradient of another colour in each."""
    height, width = CROP_SIZES[name]
    ramp = np.linspace(-1, 1, width, dtype=np.float32)[None, None, :, None]
    tint = uniform(f"{name} tint", (CROPS, 1, 1, 3))
    noise = uniform(f"{name} crops", (CROPS, height, width, 3))
    return np.asarray(np.clip(127.5 + 60 * ramp * tint + 60 * noise, 0, 255), dtype=np.uint8)


def uniform(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """float32 values in [-1, 1) that depend on the name only; raw Philox bits, whose stream never changes."""
    count = int(np.prod(shape))
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(count // 2 + 1).view(np.uint32)[:count]
    return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)).reshape(shape)
