"""The U-Net: `UNetModel` and `SuperResModel` of guided-diffusion in one module, plus identity and attribute inputs.

Parameter names and shapes equal the original's, so that its checkpoints load; the outputs agree to 1e-5 relative. The
conditions enter as in the paper's identity conditioning module: embedded to the width of the time embedding and added
to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from id3pm.config import UNetConfig
from id3pm.errors import ConfigError, InvalidInputError
from id3pm.unet.keys import require_same_shapes
from id3pm.unet.layers import (
    AttentionBlock,
    Block,
    Downsample,
    GroupNorm32,
    ResBlock,
    Upsample,
    embedding_mlp,
    timestep_embedding,
    zeroed,
)

NULL_IDENTITY = 0.0  # every element of the vector that means "no identity" (paper, section 2 of the supplement)
NULL_ATTRIBUTES = -1.0  # 0 is a valid attribute value, so "no attributes" is -1 (footnote 1 of the supplement)

GUIDANCE_FACTOR = 100.0
"""Scales 1 .. 10 become 100 .. 1000, the range that the sinusoidal embedding resolves best, that of timesteps."""


class UNet(nn.Module):
    """Predicts eps (and the variance interpolation) from x_t, t and the conditions (Dhariwal and Nichol 2021).

    Args:
        config: The architecture.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.

    Raises:
        ConfigError: The heads do not divide the channels of a level with attention.
    """

    def __init__(self, config: UNetConfig, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype = torch.float32
        emb_channels = 4 * config.num_channels
        self.time_embed = embedding_mlp(config.num_channels, emb_channels)
        self.identity_embed = None if config.identity_dim is None else embedding_mlp(config.identity_dim, emb_channels)
        self.attribute_embed = (
            None if config.attribute_dim is None else embedding_mlp(config.attribute_dim, emb_channels)
        )
        self.guidance_embed = None
        if config.guidance_range is not None:  # zero at first: a student begins as its teacher, whatever the scale
            self.guidance_embed = embedding_mlp(config.num_channels, emb_channels)
            for parameter in self.guidance_embed[2].parameters():
                nn.init.zeros_(parameter)

        level_channels = [int(mult * config.num_channels) for mult in config.channel_mult]
        levels = range(len(level_channels))
        channels = level_channels[0]
        resolution = config.image_size
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(config.in_channels, channels, 3, padding=1))])
        skip_channels = [channels]
        for level in levels:
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [_res_block(config, channels, level_channels[level])]
                channels = level_channels[level]
                if resolution in config.attention_resolutions:
                    layers.append(_attention(config, channels, config.num_heads))
                self.input_blocks.append(Block(*layers))
                skip_channels.append(channels)
            if level != levels[-1]:
                self.input_blocks.append(Block(_resampler(config, channels, Downsample)))
                skip_channels.append(channels)
                resolution //= 2

        self.middle_block = Block(
            _res_block(config, channels, channels),
            _attention(config, channels, config.num_heads),
            _res_block(config, channels, channels),
        )

        heads = config.num_heads_upsample or config.num_heads
        self.output_blocks = nn.ModuleList()
        for level in reversed(levels):
            for i in range(config.num_res_blocks + 1):
                layers = [_res_block(config, channels + skip_channels.pop(), level_channels[level])]
                channels = level_channels[level]
                if resolution in config.attention_resolutions:
                    layers.append(_attention(config, channels, heads))
                if level != 0 and i == config.num_res_blocks:
                    layers.append(_resampler(config, channels, Upsample))
                    resolution *= 2
                self.output_blocks.append(Block(*layers))

        self.out = nn.Sequential(
            GroupNorm32(channels, config.norm_groups),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, config.out_channels, 3, padding=1)),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        identity: Tensor | None = None,
        attributes: Tensor | None = None,
        low_res: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """One evaluation.

        Args:
            x: Noisy images x_t, [N, 3, S, S].
            timesteps: [N], integers or floats in 0 .. T - 1 (or rescaled to 0 .. 1000).
            identity: ID vectors [N, D]; `None` is the unconditional case, the 0-vector.
            attributes: Attribute vectors [N, A]; `None` is the unconditional case, the -1-vector.
            low_res: Images to upsample in [-1, 1], [N, 3, s, s]; needed by a super-resolution network.
            guidance: Guidance scales, [N]; needed by a network with `guidance_range`.

        Returns:
            [N, 3, S, S]: eps (or v); or [N, 6, S, S]: eps, then the learned interpolation of the log-variance in
            [-1, 1].

        Raises:
            InvalidInputError: A condition was given that the network does not take, or has the wrong length, or the
                low-resolution image or the guidance scale is missing or of another size.
        """
        emb = self._embedding(x, timesteps, identity, attributes, guidance)
        skips = self._encoded(x, emb, low_res)
        h = self._run(self.middle_block, skips[-1], emb)
        for block in self.output_blocks:
            h = self._run(block, torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h.float())  # type: ignore[no-any-return]

    def features(self, x: Tensor, timesteps: Tensor, **conditions: Tensor) -> list[Tensor]:
        """What the encoder makes of noisy images: its last activations at each resolution, finest first.

        Args:
            x: See `forward`.
            timesteps: See `forward`.
            **conditions: The other arguments of `forward`.

        Returns:
            float32 [N, C, H, W] each, H = S, S / 2, S / 4, ...
        """
        low_res = conditions.pop("low_res", None)
        names = ("identity", "attributes", "guidance")
        emb = self._embedding(x, timesteps, *(conditions.get(name) for name in names))
        last = {skip.shape[2]: skip for skip in self._encoded(x, emb, low_res)}
        return [skip.float() for skip in last.values()]

    def _embedding(
        self,
        x: Tensor,
        timesteps: Tensor,
        identity: Tensor | None,
        attributes: Tensor | None,
        guidance: Tensor | None,
    ) -> Tensor:
        """The sum of the embeddings of time and conditions, [N, E]."""
        emb: Tensor = self.time_embed(timestep_embedding(timesteps, self.config.num_channels))
        identity = _condition("identity", identity, self.config.identity_dim, NULL_IDENTITY, x)
        attributes = _condition("attributes", attributes, self.config.attribute_dim, NULL_ATTRIBUTES, x)
        if self.identity_embed is not None:
            emb = emb + self.identity_embed(identity)
        if self.attribute_embed is not None:
            emb = emb + self.attribute_embed(attributes)
        if (scales := self._guidance(guidance, x)) is not None and self.guidance_embed is not None:
            emb = emb + self.guidance_embed(scales)
        return emb

    def _encoded(self, x: Tensor, emb: Tensor, low_res: Tensor | None) -> list[Tensor]:
        """The outputs of the input blocks, in order."""
        h = self._with_low_res(x, low_res).to(self.dtype)
        skips = []
        for block in self.input_blocks:
            h = self._run(block, h, emb)
            skips.append(h)
        return skips

    def _guidance(self, guidance: Tensor | None, x: Tensor) -> Tensor | None:
        """The scales as the layers that embed them take them; `None` for a network without that input."""
        if self.config.guidance_range is None:
            if guidance is not None:
                raise InvalidInputError("this network takes no guidance scale")
            return None
        if guidance is None or guidance.ndim != 1:
            got = None if guidance is None else tuple(guidance.shape)
            raise InvalidInputError(f"guidance is {got}: this network takes [{x.shape[0]}] scales")
        return timestep_embedding(GUIDANCE_FACTOR * guidance, self.config.num_channels)

    def convert(self, dtype: torch.dtype) -> None:
        """Keeps the convolutions between the embeddings and the last layer in half precision, as `use_fp16` does.

        Norms, embeddings and the last convolution stay in fp32, as guided-diffusion's `convert_module_to_f16` has it.

        Args:
            dtype: `torch.float16` or `torch.bfloat16`.
        """
        self.dtype = dtype
        for part in (self.input_blocks, self.middle_block, self.output_blocks):
            for module in part.modules():
                if isinstance(module, nn.Conv1d | nn.Conv2d):
                    module.to(dtype)

    def _with_low_res(self, x: Tensor, low_res: Tensor | None) -> Tensor:
        """The input of the first convolution: x_t, beside it the low-resolution image at the same size."""
        small = self.config.low_res_size
        if small is None:
            if low_res is not None:
                raise InvalidInputError("this network takes no low_res image")
            return x
        if low_res is None or tuple(low_res.shape[1:]) != (3, small, small):
            got = None if low_res is None else tuple(low_res.shape)
            raise InvalidInputError(f"low_res is {got}: this network takes [N, 3, {small}, {small}]")
        size = (self.config.image_size, self.config.image_size)
        return torch.cat([x, F.interpolate(low_res, size, mode="bilinear", align_corners=False)], dim=1)

    def _run(self, block: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, h, emb, use_reentrant=False)  # type: ignore[no-any-return]
        return block(h, emb)  # type: ignore[no-any-return]


def _condition(name: str, vector: Tensor | None, dim: int | None, null: float, x: Tensor) -> Tensor | None:
    """The condition to embed, its null vector where none is given; `None` where the network takes none."""
    if dim is None:
        if vector is not None:
            raise InvalidInputError(f"this network takes no {name}")
        return None
    if vector is None:
        return torch.full((x.shape[0], dim), null, device=x.device)
    if vector.ndim != 2 or vector.shape[1] != dim:
        raise InvalidInputError(f"{name} has shape {tuple(vector.shape)}: this network takes [N, {dim}]")
    return vector


def _res_block(
    config: UNetConfig,
    channels: int,
    out_channels: int,
    resample: type[Upsample] | type[Downsample] | None = None,
) -> ResBlock:
    return ResBlock(
        channels,
        4 * config.num_channels,
        out_channels=out_channels,
        dropout=config.dropout,
        scale_shift_norm=config.use_scale_shift_norm,
        resample=resample,
        norm_groups=config.norm_groups,
    )


def _resampler(config: UNetConfig, channels: int, resample: type[Upsample] | type[Downsample]) -> nn.Module:
    if config.resblock_updown:
        return _res_block(config, channels, channels, resample)
    return resample(channels, use_conv=config.conv_resample)


def _attention(config: UNetConfig, channels: int, heads: int) -> AttentionBlock:
    if config.num_head_channels is not None:
        if channels % config.num_head_channels:
            raise ConfigError(
                f"num_head_channels={config.num_head_channels}: must divide the {channels} channels of every level "
                "with attention"
            )
        heads = channels // config.num_head_channels
    return AttentionBlock(
        channels, heads=heads, new_order=config.use_new_attention_order, norm_groups=config.norm_groups
    )


def expected_shapes(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Shape by parameter name, in guided-diffusion's order; allocates no memory (meta device)."""
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in UNet(config).state_dict().items()}


def load_unet(config: UNetConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> UNet:
    """A network with the given weights (copied to float32), in evaluation mode on the CPU.

    Args:
        config: The architecture.
        tensors: Array by parameter name, as `read_checkpoint` or `load_weights` give them.

    Raises:
        CheckpointError: Keys or shapes do not fit; the message lists all of them.
    """
    require_same_shapes(expected_shapes(config), {key: array.shape for key, array in tensors.items()})
    with torch.device("meta"):
        unet = UNet(config)
    state = {key: torch.tensor(array, dtype=torch.float32) for key, array in tensors.items()}
    unet.load_state_dict(state, assign=True)  # no random initialisation to throw away
    return unet.eval()
