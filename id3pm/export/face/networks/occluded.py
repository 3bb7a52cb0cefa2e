"""FROM, face recognition with occlusion masks, as haibo-qiu/FROM's `lib/models/fpn.py` names its layers.

Qiu, Gong, Li, Liu, Tao, "End2End occluded face recognition by masking corrupted features", TPAMI 2021. A feature
pyramid decodes a mask [512, 7, 6] from the picture, which multiplies the last feature map before the fully connected
layer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 64, 128, 256, 512)
UNITS_50 = (3, 4, 14, 3)
FEATURES = 512 * 7 * 6
GRID = 5
"""`p5` in the name of the published weights: occlusions are rectangles of a 5x5 grid."""
PATTERNS = (GRID * (GRID + 1) // 2) ** 2 + 1
"""Classes of the training head: all rectangles of the grid, and none."""


class ImprovedResidual(nn.Module):
    """As ArcFace's: BN, conv, BN, PReLU, conv (with the stride), BN beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.prelu1 = nn.PReLU(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)) if first else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        y: Tensor = self.bn3(self.conv2(self.prelu1(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class FeaturePyramid(nn.Module):
    """Lin et al., CVPR 2017, of which only the finest level is used; the others' weights are in the checkpoint."""

    def __init__(self, sizes: tuple[int, int, int], width: int = 256) -> None:
        super().__init__()
        for level, size in zip((3, 4, 5), sizes, strict=True):
            self.add_module(f"P{level}_1", nn.Conv2d(size, width, 1))
            self.add_module(f"P{level}_2", nn.Conv2d(width, width, 3, padding=1))
        self.P6 = nn.Conv2d(sizes[2], width, 3, stride=2, padding=1)
        self.P7_2 = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> Tensor:
        """Three feature maps, each half the size of the one before, to [N, width, H, W] of the first one's size."""
        p5 = self.get_submodule("P5_1")(c5)
        p4 = F.interpolate(p5, scale_factor=2.0) + self.get_submodule("P4_1")(c4)
        p3 = self.get_submodule("P3_1")(c3) + F.interpolate(p4, scale_factor=2.0)
        result: Tensor = self.get_submodule("P3_2")(p3)
        return result


class OccludedFaceNet(nn.Module):
    """112x96 RGB crops to ID vectors (`LResNet50E_IR_Occ` in the original).

    Args:
        units: Residual units per level; the published weights have the default.
    """

    def __init__(self, units: tuple[int, ...] = UNITS_50) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu1 = nn.PReLU(WIDTHS[0])
        for level, count in enumerate(units, start=1):
            inside, width = WIDTHS[level - 1], WIDTHS[level]
            rest = (ImprovedResidual(width, width, 1, first=False) for _ in range(count - 1))
            self.add_module(f"layer{level}", nn.Sequential(ImprovedResidual(inside, width, 2, first=True), *rest))
        self.mask = nn.Sequential(
            nn.Conv2d(256, 256, 3, stride=2, padding=1, bias=False),
            nn.PReLU(256),
            nn.BatchNorm2d(256),
            nn.Conv2d(256, 512, 3, stride=2, padding=1, bias=False),
            nn.Sigmoid(),
        )
        self.fpn = FeaturePyramid((128, 256, 512))
        # The training head that names the occlusion; ID vectors do not pass through it.
        self.regress = nn.Sequential(
            nn.BatchNorm1d(FEATURES),
            nn.Dropout(0.5),
            nn.Linear(FEATURES, PATTERNS, bias=False),
            nn.BatchNorm1d(PATTERNS),
        )
        self.fc = nn.Sequential(
            nn.BatchNorm1d(FEATURES), nn.Dropout(0.5), nn.Linear(FEATURES, 512), nn.BatchNorm1d(512)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, 3, 112, 96], RGB in [-1, 1], to float32 [N, 512], not normalised (the original's `fc_mask`)."""
        x = self.prelu1(self.bn1(self.conv1(x)))
        x2 = self.get_submodule("layer2")(self.get_submodule("layer1")(x))
        x3 = self.get_submodule("layer3")(x2)
        features = self.get_submodule("layer4")(x3)
        mask = self.mask(self.fpn(x2, x3, features))
        y: Tensor = self.fc((features * mask).flatten(1))
        return y
