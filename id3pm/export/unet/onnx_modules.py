"""The U-Net's blocks rewritten for the exported graph: same weights, same function.

Training code is written for autograd and PyTorch's kernels; the graph for runtimes that see one operator after the
other. `rewrite` changes the class of a loaded network's blocks: checkpoints, training and the reference know nothing of
it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.unet.layers import AttentionBlock, ResBlock

REWRITES = ("attention", "adaptive_norm")
"""All rewrites, in the order in which docs/benchmarks.md measures them; an export takes them all."""


def rewrite(unet: nn.Module, names: Collection[str] = REWRITES) -> None:
    """Rewrites all blocks of a loaded network in place, for export only.

    Args:
        unet: In evaluation mode; large parameters are shared, not copied.
        names: Which of `REWRITES`.

    Raises:
        ValueError: A name is unknown.
    """
    if unknown := sorted(set(names) - set(REWRITES)):
        raise ValueError(f"unknown rewrite {', '.join(unknown)}; there are {', '.join(REWRITES)}")
    for module in list(unet.modules()):
        if isinstance(module, AttentionBlock) and "attention" in names:
            module.__class__ = ImageAttention
            module.qkv, module.proj_out = _as_conv2d(module.qkv), _as_conv2d(module.proj_out)
        elif isinstance(module, ResBlock) and module.scale_shift_norm and "adaptive_norm" in names:
            module.__class__ = FoldedResBlock
            module.emb_layers = nn.Sequential(module.emb_layers[0], _with_norm(module))


class ImageAttention(AttentionBlock):
    """Attention on [N, C, H, W] without moving q, k and v: they stay [d, tokens], as the 1x1 convolution writes them.

    softmax(q^T k / sqrt(d)) v^T: the transpositions are arguments of a matrix product in every runtime (onnxruntime:
    `FusedMatMul`). Only the result, a quarter of what the original transposes, is turned back.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        n, channels, height, width = x.shape
        per_head, tokens = channels // self.heads, height * width
        qkv = self.qkv(self.norm(x))
        if self.new_order:
            q, k, v = (part.reshape(n, self.heads, per_head, tokens) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(n, self.heads, 3 * per_head, tokens).chunk(3, dim=2)
        scores = (q * per_head**-0.5).transpose(2, 3) @ k
        mixed = scores.softmax(dim=-1) @ v.transpose(2, 3)
        return x + self.proj_out(mixed.transpose(2, 3).reshape(n, channels, height, width))  # type: ignore[no-any-return]


class FoldedResBlock(ResBlock):
    """Adaptive group norm in one scale and one shift per row and channel, as `emb_layers` gives them (`_with_norm`)."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """[N, C, H, W] and [N, E] -> [N, out_channels, H', W']."""
        norm_in, act_in, conv_in = self.in_layers
        h = conv_in(self.resample(act_in(norm_in(x))))
        norm_out, *rest = self.out_layers
        assert isinstance(norm_out, nn.GroupNorm)
        gain, offset = self.emb_layers(emb)[..., None, None].chunk(2, dim=1)
        h = F.group_norm(h, norm_out.num_groups, eps=norm_out.eps) * gain + offset
        for layer in rest:
            h = layer(h)
        return self.skip_connection(self.resample(x)) + h  # type: ignore[no-any-return]


def _with_norm(block: ResBlock) -> nn.Linear:
    """The block's linear layer with the weight w and bias b of the group norm that it scales and shifts folded in.

    (norm(h) w + b)(1 + scale) + shift = norm(h) gain + offset, with gain = w (1 + scale) and
    offset = b (1 + scale) + shift: both are linear in what scale and shift are linear in. Computed in float64.
    """
    linear, norm = block.emb_layers[1], block.out_layers[0]
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.GroupNorm)
    stacked = torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach().double()
    scale, shift = stacked.chunk(2)
    scale[:, -1] += 1.0
    weight, bias = norm.weight.detach().double()[:, None], norm.bias.detach().double()[:, None]
    folded = torch.cat([weight * scale, bias * scale + shift]).float()
    new = nn.Linear(linear.in_features, linear.out_features, device="meta")
    new.weight = nn.Parameter(folded[:, :-1].contiguous(), requires_grad=False)
    new.bias = nn.Parameter(folded[:, -1].contiguous(), requires_grad=False)
    return new


def _as_conv2d(conv: nn.Module) -> Any:
    """A 1x1 convolution over pixels with the weights of one over tokens."""
    assert isinstance(conv, nn.Conv1d)
    image = nn.Conv2d(conv.in_channels, conv.out_channels, 1, device="meta")
    image.weight = nn.Parameter(conv.weight.detach()[..., None], requires_grad=False)
    assert conv.bias is not None
    image.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return image
