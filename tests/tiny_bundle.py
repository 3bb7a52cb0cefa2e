"""A bundle of the tiny random U-Nets."""

from __future__ import annotations

from pathlib import Path

import tiny_engines

from id3pm.formats.bundle import Bundle, write_bundle


def write_tiny_bundle(folder: Path, seed: int = 0) -> Bundle:
    """Writes the bundle of `tiny_engines.BASE` and `tiny_engines.SR` with random weights, and returns it."""
    bundle = Bundle(
        name="tiny",
        id_vector_model="sface",
        identity_dim=8,
        attribute_set=1,
        base=tiny_engines.BASE,
        base_diffusion=tiny_engines.BASE_DIFFUSION,
        sr=tiny_engines.SR,
        sr_diffusion=tiny_engines.SR_DIFFUSION,
        sampling=tiny_engines.BASE_SAMPLING,
        sr_sampling=tiny_engines.SR_SAMPLING,
        licence="MIT",
    )
    weights = [
        {key: tensor.numpy() for key, tensor in tiny_engines.random_unet(config, seed).state_dict().items()}
        for config in (tiny_engines.BASE, tiny_engines.SR)
    ]
    write_bundle(folder, bundle, *weights)
    return bundle
