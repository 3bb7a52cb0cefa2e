"""VGG-19's maps at relu3_2 (Simonyan and Zisserman 2015), for NbNet's perceptual loss; the user brings the weights."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from id3pm.errors import EngineError
from id3pm.formats.hashing import file_sha256
from id3pm.unet.checkpoint import read_plain

PUBLISHED_SHA256 = "dcbb9e9d"
"""First digits of the SHA-256 of torchvision's `vgg19-dcbb9e9d.pth`, which its published name ends with."""
CONVOLUTIONS = ((0, False), (2, True), (5, False), (7, True), (10, False), (12, False))
"""Numbers of the convolutions up to relu3_2 in torchvision's `features`; whether a pooling follows."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Vgg19:
    """The network up to relu3_2.

    Args:
        file: `vgg19-dcbb9e9d.pth`.

    Raises:
        EngineError: The file is another one; nothing of it has been loaded then.
    """

    def __init__(self, file: Path) -> None:
        if not (found := file_sha256(file)).startswith(PUBLISHED_SHA256):
            raise EngineError(
                f"{file.name} has SHA-256 {found[:8]}...: that of torchvision's VGG-19 begins with {PUBLISHED_SHA256}"
            )
        weights = read_plain(file)
        names = [f"features.{number}" for number, _ in CONVOLUTIONS]
        self._weights = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def maps(self, images: Tensor) -> Tensor:
        """Maps [N, 256, S / 4, S / 4] of pictures [N, 3, S, S] in [-1, 1]; gradients flow to the pictures."""
        x = ((images + 1.0) / 2.0 - self._mean) / self._std
        for (weight, bias), (_, pooled) in zip(self._weights, CONVOLUTIONS, strict=True):
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            x = F.max_pool2d(x, 2) if pooled else x
        return x
