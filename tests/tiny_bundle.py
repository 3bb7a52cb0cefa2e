"""A bundle of the tiny random U-Nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_engines
from numpy.typing import NDArray

from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_BASE_SAMPLING, PAPER_SR_DIFFUSION, PAPER_SR_SAMPLING
from id3pm.formats.bundle import Bundle, Storage, write_bundle
from id3pm.unet.model import UNet


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
    unets = (tiny_engines.random_unet(config, seed) for config in (tiny_engines.BASE, tiny_engines.SR))
    write_bundle(folder, bundle, *map(arrays, unets))
    return bundle


def write_paper_bundle(folder: Path, base: UNet, sr: UNet, storage: Storage) -> None:
    """Writes a bundle of these networks with the paper's diffusion and sampling."""
    bundle = Bundle(
        name="full-size",
        id_vector_model="none",
        identity_dim=512,
        attribute_set=None,
        base=base.config,
        base_diffusion=PAPER_BASE_DIFFUSION,
        sr=sr.config,
        sr_diffusion=PAPER_SR_DIFFUSION,
        sampling=PAPER_BASE_SAMPLING,
        sr_sampling=PAPER_SR_SAMPLING,
        licence="none",
    )
    write_bundle(folder, bundle, arrays(base), arrays(sr), storage=storage)


def arrays(unet: UNet) -> dict[str, NDArray[np.float32]]:
    """The weights of a network."""
    return {key: tensor.numpy() for key, tensor in unet.state_dict().items()}
