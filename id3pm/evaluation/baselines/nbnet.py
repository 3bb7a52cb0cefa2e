"""NbNet (Mai et al. 2018, "On the Reconstruction of Face Images from Deep Face Templates"): vector -> picture.

A deconvolution network of neighbourly blocks: a block doubles the side by one deconvolution, which gives half of the
block's channels, and adds the other half eight at a time by convolutions of what the block has so far. Each
(de)convolution is followed by batch norm and ReLU. Written from the published description; `DEVIATIONS` says what
differs.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from id3pm.errors import InvalidInputError

IMAGE_SIZE, FIRST_SIDE = 64, 4
GROWTH = 8  # channels of one convolution of a block
LEVELS = 5  # 4, 8, 16, 32, 64 pixels
BlockKind = Literal["A", "B"]
DEVIATIONS = (
    "64 px in five blocks that begin with 4 px and 256 channels, instead of 160 px in six",
    "block B takes the maps of the convolution before alone",
    "trained on the embedded data set of generated faces instead of VGG-Dataset and its augmentation by a GAN",
)


class NbNet(nn.Module):
    """The network.

    Args:
        identity_dim: D of the ID vectors.
        blocks: `A`: each convolution of a block takes all maps of the block before it; `B`, cheaper: those of the
            convolution before alone.
        channels: Of the first block; each following one has half of them.

    Raises:
        InvalidInputError: An argument is outside of its range.
    """

    def __init__(self, identity_dim: int, blocks: BlockKind = "A", channels: int = 256) -> None:
        super().__init__()
        if blocks not in get_args(BlockKind):
            raise InvalidInputError(f"blocks={blocks!r}: NbNet has blocks {', '.join(get_args(BlockKind))}")
        smallest = 2 * GROWTH << (LEVELS - 1)
        if channels % smallest:
            raise InvalidInputError(f"channels={channels}: must be a multiple of {smallest}")
        widths = [channels >> level for level in range(LEVELS)]
        inputs = [identity_dim, *widths[:-1]]
        self.blocks = nn.ModuleList(
            NbBlock(before, width, blocks, first=level == 0)
            for level, (before, width) in enumerate(zip(inputs, widths, strict=True))
        )
        self.picture = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """ID vectors [N, D] of norm 1 -> pictures [N, 3, 64, 64] in [-1, 1]."""
        x = vectors[:, :, None, None]
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.picture(x))


class NbBlock(nn.Module):
    """One neighbourly deconvolution block: [N, C, S, S] -> [N, outputs, 2 S, 2 S]; the first one makes 4 px of 1."""

    def __init__(self, inputs: int, outputs: int, kind: BlockKind, *, first: bool) -> None:
        super().__init__()
        half = outputs // 2
        kernel, stride, padding = (FIRST_SIDE, 1, 0) if first else (3, 2, 1)
        deconvolution = nn.ConvTranspose2d(
            inputs, half, kernel, stride, padding, output_padding=0 if first else 1, bias=False
        )
        self.kind = kind
        self.enlarge = nn.Sequential(deconvolution, nn.BatchNorm2d(half), nn.ReLU())
        self.neighbours = nn.ModuleList()
        for number in range(half // GROWTH):
            seen = half + GROWTH * number if kind == "A" or number == 0 else GROWTH
            convolution = nn.Conv2d(seen, GROWTH, 3, padding=1, bias=False)
            self.neighbours.append(nn.Sequential(convolution, nn.BatchNorm2d(GROWTH), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        maps = [self.enlarge(x)]
        for neighbour in self.neighbours:
            maps.append(neighbour(torch.cat(maps, dim=1) if self.kind == "A" else maps[-1]))
        return torch.cat(maps, dim=1)
