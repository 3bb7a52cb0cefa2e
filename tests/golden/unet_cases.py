"""What the golden values of the U-Net are computed on: configurations, weights and inputs, the same on any machine."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from id3pm.config import UNET_PRESETS, UNetConfig

BATCH = 2

_PLAIN = UNetConfig(
    image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1, 2), attention_resolutions=(8,), num_heads=2
)
CASES: Mapping[str, UNetConfig] = {
    "new_order_updown": replace(_PLAIN, resblock_updown=True, use_new_attention_order=True),
    "legacy_order_updown": replace(_PLAIN, resblock_updown=True),
    "strided_conv": replace(_PLAIN, use_scale_shift_norm=False, learn_sigma=False, num_res_blocks=2),
    "average_pool": replace(_PLAIN, conv_resample=False, use_new_attention_order=True, num_heads=4),
    "fractional_channel_mult": replace(_PLAIN, num_channels=64, channel_mult=(0.5, 1), resblock_updown=True),
    "num_head_channels": replace(_PLAIN, num_heads=1, num_head_channels=16, resblock_updown=True),
    "num_heads_upsample": replace(_PLAIN, num_heads=1, num_heads_upsample=4, use_new_attention_order=True),
    "four_levels": replace(
        _PLAIN, channel_mult=(1, 1, 2, 2), attention_resolutions=(16, 4, 2), resblock_updown=True, dropout=0.1
    ),
    "super_resolution": replace(_PLAIN, low_res_size=4, resblock_updown=True, num_heads=4),
    "conditioned": replace(_PLAIN, use_scale_shift_norm=False, identity_dim=8, attribute_dim=5),
}
FULL_SIZE: Mapping[str, UNetConfig] = UNET_PRESETS  # one image each; every n-th pixel of the output is kept
KEEP_EVERY = {"paper-base-64": 4, "paper-sr-256": 16}


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values in [-1, 1) that depend on the name only; raw Philox bits, whose stream never changes."""
    raw = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0).astype(np.float32).reshape(shape)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights by key; matrices scaled by their fan-in so that activations stay near 1, norm scales around 1."""
    result = {}
    for key, shape in shapes.items():
        values = uniform(key, shape)
        if len(shape) > 1:
            result[key] = values * np.float32(np.sqrt(3.0 / np.prod(shape[1:])))
        else:
            result[key] = np.float32(0.2) * values + np.float32(is_norm_scale(key))
    return result


def is_norm_scale(key: str) -> bool:
    return key.endswith((".in_layers.0.weight", ".out_layers.0.weight", ".norm.weight")) or key == "out.0.weight"


def condition_shapes(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the layers that the original does not have."""
    width = 4 * config.num_channels
    dims = {"identity_embed": config.identity_dim, "attribute_embed": config.attribute_dim}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, dim in dims.items():
        if dim is not None:
            shapes |= {
                f"{name}.0.weight": (width, dim),
                f"{name}.0.bias": (width,),
                f"{name}.2.weight": (width, width),
                f"{name}.2.bias": (width,),
            }
    return shapes


def inputs(config: UNetConfig, batch: int = BATCH) -> dict[str, np.ndarray]:
    """x_t, fractional timesteps and what else the network takes; the last of several rows has the null conditions."""
    size = config.image_size
    arrays = {
        "x": 2 * uniform("x", (batch, 3, size, size)),
        "timesteps": np.array([3.0, 761.5], dtype=np.float32)[-batch:],
    }
    if config.identity_dim is not None:
        arrays["identity"] = uniform("identity", (batch, config.identity_dim))
    if config.attribute_dim is not None:
        arrays["attributes"] = uniform("attributes", (batch, config.attribute_dim))
    if batch > 1:
        for name, null in (("identity", 0.0), ("attributes", -1.0)):
            if name in arrays:
                arrays[name][-1] = null
    if config.low_res_size is not None:
        arrays["low_res"] = uniform("low_res", (batch, 3, config.low_res_size, config.low_res_size))
    return arrays


def shape_lines(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line per tensor, in the model's order: `key 64x32x3x3`."""
    return [f"{key} {'x'.join(map(str, shape))}" for key, shape in shapes.items()]
