"""LPIPS 0.1 (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"), AlexNet.

The backbone is torchvision's `alexnet-owt-7be5be79.pth`, which the user brings; the weights of its channels are a file
of the wheel `lpips` (BSD-2, 54 kB), whose code is not imported: `pip install --no-deps lpips==0.1.4`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from id3pm.errors import EngineError, MissingExtraError
from id3pm.formats.hashing import file_sha256
from id3pm.unet.checkpoint import read_plain

BACKBONE_SHA256, CHANNELS_SHA256 = "7be5be79", "df73285e"
"""First digits of the files' SHA-256; the backbone's published name ends with them."""
CONVOLUTIONS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
"""Number in torchvision's `features`, stride and padding; a pooling comes before the second and the third one."""
POOLED = (3, 6)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in [-1, 1]
EPS = 1e-10


class Lpips:
    """Distances between pictures.

    Args:
        backbone: AlexNet's weights.
        channels: Weights of its channels; `None` for the file of the installed wheel.

    Raises:
        EngineError: A file is another one; nothing of it has been loaded then.
        MissingExtraError: The wheel is not installed.
    """

    name = "LPIPS, AlexNet"

    def __init__(self, backbone: Path, channels: Path | None = None) -> None:
        channels = _packaged() if channels is None else channels
        for file, published in ((backbone, BACKBONE_SHA256), (channels, CHANNELS_SHA256)):
            if not (found := file_sha256(file)).startswith(published):
                raise EngineError(
                    f"{file.name} has SHA-256 {found[:8]}...: that of the published weights begins with {published}"
                )
        self.key = f"LPIPS 0.1 {BACKBONE_SHA256} {CHANNELS_SHA256}"
        layers, lines = read_plain(backbone), read_plain(channels)
        self._layers = [
            (layers[f"features.{number}.weight"], layers[f"features.{number}.bias"]) for number, _, _ in CONVOLUTIONS
        ]
        self._lines = [lines[f"lin{level}.model.1.weight"] for level in range(len(CONVOLUTIONS))]
        self._shift, self._scale = (torch.tensor(values)[:, None, None] for values in (SHIFT, SCALE))

    @torch.inference_mode()
    def pairs(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Distances of all pairs of uint8 [N, H, W, 3], RGB: [N (N - 1) / 2], in the order of `numpy.triu_indices`."""
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1.0
        first, second = np.triu_indices(len(images), k=1)
        total = torch.zeros(len(first))
        for maps, line in zip(self._maps(x), self._lines, strict=True):
            unit = maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + EPS)
            difference = (unit[first] - unit[second]).square()
            total += F.conv2d(difference, line).mean(dim=(1, 2, 3))
        distances: NDArray[np.float64] = total.numpy().astype(np.float64)
        return distances

    def _maps(self, x: Tensor) -> list[Tensor]:
        x = (x - self._shift) / self._scale
        found = []
        for (number, stride, padding), (weight, bias) in zip(CONVOLUTIONS, self._layers, strict=True):
            x = F.max_pool2d(x, 3, 2) if number in POOLED else x
            x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
            found.append(x)
        return found


def _packaged() -> Path:
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("LPIPS needs the file of its wheel: pip install --no-deps lpips==0.1.4")
    return Path(spec.submodule_search_locations[0]) / "weights/v0.1/alex.pth"
