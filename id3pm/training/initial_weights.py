"""The weights that a run starts from: random ones, or those of a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from id3pm.errors import ConfigError
from id3pm.formats.bundle import Stage, load_weights, read_bundle, weights_hash
from id3pm.training.presets import TrainConfig
from id3pm.unet.model import UNet


def build(config: TrainConfig) -> UNet:
    """A freshly initialised network for `config.train_size`; the same seed gives the same weights.

    PyTorch initialises a linear layer for inputs of variance 1, but the elements of a unit ID vector of length D have
    variance 1 / D. `identity_gain` = sqrt(D) makes up for it, so that a short run need not learn the scale first.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet(config.train_unet)
    if unet.identity_embed is not None:
        with torch.no_grad():
            unet.get_parameter("identity_embed.0.weight").mul_(config.identity_gain)
    return unet


def weights_of_bundle(folder: Path, config: TrainConfig, unet: UNet) -> dict[str, Tensor]:
    """The weights of a bundle for a run.

    A run with attributes may start from a bundle without: what it adds to the time embedding is zero at first, so that
    it begins as the network of the bundle, whatever the attributes.

    Args:
        folder: A bundle's folder.
        config: The run.
        unet: The run's network, freshly initialised; not changed.

    Returns:
        Weights by name, on the CPU; those that the bundle does not have on the network's device.

    Raises:
        BundleError: It cannot be read.
        ConfigError: Its network or its noising process is another one than this run's.
    """
    bundle = read_bundle(folder)
    base = config.stage == "base"
    stored, diffusion = (bundle.base, bundle.base_diffusion) if base else (bundle.sr, bundle.sr_diffusion)
    adds_attributes = stored.attribute_dim is None and config.unet.attribute_dim is not None
    if adds_attributes:
        stored = dataclasses.replace(stored, attribute_dim=config.unet.attribute_dim)
    elif base and bundle.attribute_set != config.attribute_set:
        raise ConfigError(
            f"{folder} has attribute set {bundle.attribute_set}, this run {config.attribute_set}: need the same"
        )
    diffusion = dataclasses.replace(diffusion, data_mean=config.diffusion.data_mean)
    if (stored, diffusion) != (config.unet, config.diffusion):
        raise ConfigError(
            f"{folder} holds another {config.stage} network than this run trains: start from random weights"
        )
    weights = {name: torch.from_numpy(array) for name, array in load_weights(folder, config.stage).items()}
    return weights | (_silent_attributes(unet) if adds_attributes else {})


def provenance(folder: Path, stage: Stage) -> dict[str, Any]:
    """For the training card: the bundle, its weights, and how many images trained them."""
    bundle = read_bundle(folder)
    earlier = bundle.training_card.get(stage, {})
    return {
        "bundle": bundle.name,
        "weights_sha256": weights_hash(folder, stage),
        "images_seen": earlier.get("images_seen", 0) + earlier.get("started_from", {}).get("images_seen", 0),
    }


def _silent_attributes(unet: UNet) -> dict[str, Tensor]:
    """The fresh weights of the attribute embedding, its last layer zero."""
    fresh = {name: tensor for name, tensor in unet.state_dict().items() if name.startswith("attribute_embed.")}
    return {name: torch.zeros_like(tensor) if ".2." in name else tensor for name, tensor in fresh.items()}
