"""Where a network that is trained in half precision divides: as guided-diffusion's `use_fp16` does.

Weights stay in float32, and autocast computes in half precision. By itself it would take the embeddings and the last
convolution too, which `use_fp16` (and an engine, see `UNet.convert`) computes in float32.
"""

from __future__ import annotations

import types

import torch
from torch import Tensor, nn

from id3pm.unet.layers import ResBlock
from id3pm.unet.model import UNet


def keep_fp32(unet: UNet) -> None:
    """From now on embeddings and the last layers compute in float32, also under autocast; see `UNet.convert`."""
    embeddings = (unet.time_embed, unet.identity_embed, unet.attribute_embed, unet.guidance_embed)
    blocks = (module.emb_layers for module in unet.modules() if isinstance(module, ResBlock))
    for layers in (*embeddings, *blocks, unet.out):
        if layers is not None:
            # Bound, so that a copy of the network has its own.
            layers.forward = types.MethodType(_in_fp32, layers)  # type: ignore[method-assign]


def _in_fp32(layers: nn.Sequential, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = nn.Sequential.forward(layers, x.float())  # type: ignore[no-untyped-call]
    return result
