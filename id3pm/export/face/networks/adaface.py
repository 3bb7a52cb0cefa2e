"""AdaFace's IR-50 backbone, as mk-minchul/AdaFace's `net.py` names its layers (MIT licence).

Kim, Jain, Liu, "AdaFace: Quality adaptive margin for face recognition", CVPR 2022. The blocks are ArcFace's improved
residual units (Deng et al., CVPR 2019).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
UNITS_50 = (3, 4, 14, 3)


def _shortcut(inside: int, outside: int, stride: int) -> nn.Module:
    if inside != outside:
        return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
    return nn.Identity() if stride == 1 else nn.MaxPool2d(1, stride)


class ImprovedResidual(nn.Module):
    """BN, conv, BN, PReLU, conv (with the stride), BN beside a shortcut; no activation after the sum."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = _shortcut(inside, outside, stride)
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inside),
            nn.Conv2d(inside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.PReLU(outside),
            nn.Conv2d(outside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y


class AdaFaceBackbone(nn.Module):
    """112x112 BGR crops to ID vectors.

    Args:
        units: Residual units per level; the published `adaface_ir50_ms1mv2` has the default.
    """

    def __init__(self, units: tuple[int, ...] = UNITS_50) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        body = []
        inside = 64
        for width, count in zip(WIDTHS, units, strict=True):
            for unit in range(count):
                body.append(ImprovedResidual(inside, width, stride=2 if unit == 0 else 1))
                inside = width
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, 3, 112, 112], BGR in [-1, 1], to float32 [N, 512] of L2 norm 1.

        The original returns the norm beside it, which its loss takes for the quality of the picture.
        """
        y: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return F.normalize(y, dim=1)
