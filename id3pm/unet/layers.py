"""Building blocks of the U-Net; attribute names give guided-diffusion's parameter names (`guided_diffusion/unet.py`).

Shapes: `x` is [N, C, H, W], `emb` is the time (and condition) embedding [N, E]. Weights are kept in float32; training
may run under autocast, in which group norm still computes in float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.errors import ConfigError

GROUPS = 32  # of every group norm (Ho et al. 2020)
MAX_PERIOD = 10_000.0  # longest wavelength of the time embedding (Vaswani et al. 2017, section 3.5)


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of time steps: cosines, then sines, of t * 10000^(-i / (dim // 2)).

    Args:
        timesteps: [N], integers or floats (fractional where time steps are rescaled).
        dim: Width of the embedding; an odd one ends in a zero.

    Returns:
        float32 [N, dim].
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)[None]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


def embedding_mlp(in_dim: int, out_dim: int) -> nn.Sequential:
    """Linear, SiLU, Linear: lifts the time embedding or a condition vector to the width of `emb`."""
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.SiLU(), nn.Linear(out_dim, out_dim))


def zeroed(conv: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """The convolution with zero weights: at initialisation every residual branch adds nothing."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class GroupNorm32(nn.GroupNorm):
    """Group norm that computes in float32 whatever the activations are in."""

    def __init__(self, channels: int, groups: int = GROUPS) -> None:
        super().__init__(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> the same shape and dtype."""
        return super().forward(x.float()).to(x.dtype)


class Upsample(nn.Module):
    """Twice the size by repeating pixels, then a 3x3 convolution if asked for."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 2H, 2W]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Half the size by a strided 3x3 convolution, or by averaging 2x2 pixels."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H/2, W/2]."""
        return self.op(x)  # type: ignore[no-any-return]


class ResBlock(nn.Module):
    """Residual block conditioned on `emb` (Dhariwal and Nichol 2021, section 3).

    Args:
        channels: Channels of the input.
        emb_channels: Width of `emb`.
        out_channels: Channels of the output.
        dropout: Dropout rate before the last convolution.
        scale_shift_norm: `emb` scales and shifts the normalised activations (AdaGN) instead of being added.
        resample: `Upsample` or `Downsample` to change the size on both branches, or `None` to keep it.
        norm_groups: Groups of its group norms; must divide both numbers of channels.
    """

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        *,
        out_channels: int,
        dropout: float,
        scale_shift_norm: bool,
        resample: type[Upsample] | type[Downsample] | None = None,
        norm_groups: int = GROUPS,
    ) -> None:
        super().__init__()
        self.scale_shift_norm = scale_shift_norm
        self.resample = nn.Identity() if resample is None else resample(channels, use_conv=False)
        self.in_layers = nn.Sequential(
            GroupNorm32(channels, norm_groups), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels if scale_shift_norm else out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels, norm_groups),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """[N, C, H, W] and [N, E] -> [N, out_channels, H', W']."""
        norm_in, act_in, conv_in = self.in_layers
        h = conv_in(self.resample(act_in(norm_in(x))))
        shift = self.emb_layers(emb).to(h.dtype)[..., None, None]
        if self.scale_shift_norm:
            scale, shift = shift.chunk(2, dim=1)
            norm_out, *rest = self.out_layers
            h = norm_out(h) * (1 + scale) + shift
            for layer in rest:
                h = layer(h)
        else:
            h = self.out_layers(h + shift)
        return self.skip_connection(self.resample(x)) + h  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, added to its input.

    Args:
        channels: Channels of input and output.
        heads: Number of heads; must divide `channels`.
        new_order: The rows of `qkv` are ordered [q/k/v, head, channel] (guided-diffusion's `QKVAttention`) instead of
            [head, q/k/v, channel] (`QKVAttentionLegacy`).
        norm_groups: Groups of its group norm; must divide `channels`.

    Raises:
        ConfigError: `heads` does not divide `channels`.
    """

    def __init__(self, channels: int, *, heads: int, new_order: bool, norm_groups: int = GROUPS) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError(f"attention over {channels} channels cannot be split into {heads} heads: must divide")
        self.heads = heads
        self.new_order = new_order
        self.norm = GroupNorm32(channels, norm_groups)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        n, channels, height, width = x.shape
        tokens = x.reshape(n, channels, height * width)
        qkv = self.qkv(self.norm(tokens))
        per_head = channels // self.heads
        if self.new_order:
            qkv = qkv.reshape(n, 3, self.heads, per_head, height * width).permute(1, 0, 2, 4, 3)
        else:
            qkv = qkv.reshape(n, self.heads, 3, per_head, height * width).permute(2, 0, 1, 4, 3)
        q, k, v = qkv.contiguous().unbind(0)  # each [N, heads, H*W, per_head]; fused kernels want them contiguous
        mixed = F.scaled_dot_product_attention(q, k, v)  # softmax(q k^T / sqrt(per_head)) v
        mixed = mixed.transpose(2, 3).reshape(n, channels, height * width)
        return (tokens + self.proj_out(mixed)).reshape(n, channels, height, width)  # type: ignore[no-any-return]


class Block(nn.Sequential):
    """Layers in a row, `emb` given to those that take it (guided-diffusion's `TimestepEmbedSequential`)."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        """[N, C, H, W] and [N, E] -> [N, C', H', W']."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x
