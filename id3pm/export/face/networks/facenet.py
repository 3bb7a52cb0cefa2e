"""FaceNet: Inception-ResNet-v1 with 512 outputs, as timesler/facenet-pytorch names its layers (MIT licence).

Schroff et al., "FaceNet: A unified embedding for face recognition and clustering", CVPR 2015; Szegedy et al.,
"Inception-v4, Inception-ResNet and the impact of residual connections on learning", AAAI 2017, figures 9 to 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kernel = int | tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm (TensorFlow's epsilon), ReLU."""

    def __init__(self, inside: int, outside: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        return F.relu(self.bn(self.conv(x)))


def _tower(inside: int, *layers: tuple[int, Kernel, Kernel]) -> nn.Module:
    """Convolutions of stride 1 one after the other, each (channels, kernel, padding)."""
    widths = [inside, *(width for width, _, _ in layers)]
    return _stack(
        ConvNorm(before, width, kernel, padding=padding)
        for before, (width, kernel, padding) in zip(widths, layers, strict=False)
    )


def _stack(layers: Iterable[nn.Module]) -> nn.Module:
    """One layer as itself, several as a sequence: so keys have an index only for several."""
    modules = list(layers)
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


class ResidualBlock(nn.Module):
    """x + scale * (1x1 convolution of all branches side by side), then ReLU.

    Args:
        channels: Of x.
        branches: They become `branch0`, `branch1`, ...
        inside: Channels of all branches together.
        scale: Of the residual.
        rectified: ReLU at the end; the network's last block has none.
    """

    def __init__(
        self, channels: int, branches: Sequence[nn.Module], inside: int, scale: float, rectified: bool = True
    ) -> None:
        super().__init__()
        self._names = [f"branch{index}" for index in range(len(branches))]
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(inside, channels, 1)
        self._scale, self._rectified = scale, rectified

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        branches = torch.cat([self.get_submodule(name)(x) for name in self._names], dim=1)
        x = self.conv2d(branches) * self._scale + x
        return F.relu(x) if self._rectified else x


class ReductionBlock(nn.Module):
    """Branches of stride 2 side by side; the last one is a 3x3 maximum of the input."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self._names = [f"branch{index}" for index in range(len(branches))]
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', (H - 1) // 2, (W - 1) // 2]."""
        branches = [self.get_submodule(name)(x) for name in self._names]
        return torch.cat([*branches, F.max_pool2d(x, 3, stride=2)], dim=1)


def _block35() -> nn.Module:
    branches = [
        _tower(256, (32, 1, 0)),
        _tower(256, (32, 1, 0), (32, 3, 1)),
        _tower(256, (32, 1, 0), (32, 3, 1), (32, 3, 1)),
    ]
    return ResidualBlock(256, branches, inside=96, scale=0.17)


def _block17() -> nn.Module:
    branches = [_tower(896, (128, 1, 0)), _tower(896, (128, 1, 0), (128, (1, 7), (0, 3)), (128, (7, 1), (3, 0)))]
    return ResidualBlock(896, branches, inside=256, scale=0.10)


def _block8(scale: float = 0.20, rectified: bool = True) -> nn.Module:
    branches = [_tower(1792, (192, 1, 0)), _tower(1792, (192, 1, 0), (192, (1, 3), (0, 1)), (192, (3, 1), (1, 0)))]
    return ResidualBlock(1792, branches, inside=384, scale=scale, rectified=rectified)


def _mixed_6a() -> nn.Module:
    return ReductionBlock(
        [
            ConvNorm(256, 384, 3, stride=2),
            nn.Sequential(ConvNorm(256, 192, 1), ConvNorm(192, 192, 3, padding=1), ConvNorm(192, 256, 3, stride=2)),
        ]
    )


def _mixed_7a() -> nn.Module:
    return ReductionBlock(
        [
            nn.Sequential(ConvNorm(896, 256, 1), ConvNorm(256, 384, 3, stride=2)),
            nn.Sequential(ConvNorm(896, 256, 1), ConvNorm(256, 256, 3, stride=2)),
            nn.Sequential(ConvNorm(896, 256, 1), ConvNorm(256, 256, 3, padding=1), ConvNorm(256, 256, 3, stride=2)),
        ]
    )


class InceptionResnetV1(nn.Module):
    """160x160 RGB crops to ID vectors. The training head (`logits`) is not part of it.

    Args:
        units: Residual blocks of each size; the published weights have the default.
    """

    def __init__(self, units: tuple[int, int, int] = (5, 10, 5)) -> None:
        super().__init__()
        self.conv2d_1a = ConvNorm(3, 32, 3, stride=2)
        self.conv2d_2a = ConvNorm(32, 32, 3)
        self.conv2d_2b = ConvNorm(32, 64, 3, padding=1)
        self.conv2d_3b = ConvNorm(64, 80, 1)
        self.conv2d_4a = ConvNorm(80, 192, 3)
        self.conv2d_4b = ConvNorm(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(units[0])))
        self.mixed_6a = _mixed_6a()
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(units[1])))
        self.mixed_7a = _mixed_7a()
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(units[2])))
        # The original's last block leaves its scale at 1.
        self.block8 = _block8(scale=1.0, rectified=False)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, 3, 160, 160], (pixel - 127.5) / 128, to float32 [N, 512] of L2 norm 1."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        return F.normalize(self.last_bn(self.last_linear(x.mean(dim=(2, 3)))), dim=1)
