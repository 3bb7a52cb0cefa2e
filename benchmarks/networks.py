"""The networks that are measured: bundles with random weights, and the arithmetic that one evaluation takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_BASE_SAMPLING,
    PAPER_SR_DIFFUSION,
    PAPER_SR_SAMPLING,
    UNetConfig,
)
from id3pm.engines.inputs import input_shapes
from id3pm.formats.bundle import Bundle, write_bundle
from id3pm.unet.model import UNet

SMALL_64 = dataclasses.replace(PAPER_BASE_64, num_channels=64, num_res_blocks=1, num_head_channels=64)
"""The paper's base network at a third of its width and one residual block per level: 18.2 M parameters."""
TINY_16 = UNetConfig(
    image_size=16,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(8,),
    num_head_channels=32,
    resblock_updown=True,
    identity_dim=8,
)
"""For --quick."""
TINY_SR = UNetConfig(
    image_size=256, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), low_res_size=64
)


def random_unet(config: UNetConfig) -> UNet:
    """A network with random weights everywhere: at initialisation many are zero, and zeros are cheap to add."""
    unet = UNet(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_(0.0, max(parameter[0].numel(), 4) ** -0.5, generator=generator)
    return unet


def write_random_bundle(folder: Path, name: str, config: UNetConfig, sr: UNetConfig | None = None) -> None:
    """Writes a bundle whose 64 px stage is `config` with random weights; without `sr` the other is a stand-in."""
    bundle = Bundle(
        name=name,
        id_vector_model="none",
        identity_dim=config.identity_dim or 0,
        attribute_set=None,
        base=config,
        base_diffusion=PAPER_BASE_DIFFUSION,
        sr=sr or dataclasses.replace(TINY_SR, image_size=4 * config.image_size, low_res_size=config.image_size),
        sr_diffusion=PAPER_SR_DIFFUSION,
        sampling=PAPER_BASE_SAMPLING,
        sr_sampling=PAPER_SR_SAMPLING,
        licence="none",
    )
    tensors = [
        {key: tensor.numpy() for key, tensor in random_unet(stage).state_dict().items()}
        for stage in (bundle.base, bundle.sr)
    ]
    write_bundle(folder, bundle, *tensors, storage="fp16")


def unet_flops(config: UNetConfig) -> int:
    """Floating-point operations of one evaluation of one row: two per multiplication of convolutions and products."""
    with torch.device("meta"):
        inputs = {name: torch.zeros(shape) for name, shape in input_shapes(config, 1).items()}
        return module_flops(UNet(config).eval(), **inputs)


def module_flops(module: nn.Module, **inputs: torch.Tensor) -> int:
    """Floating-point operations of one call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(**inputs)
    return int(counter.get_total_flops())


def parameters(config: UNetConfig) -> int:
    """Number of weights."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(config).parameters())
