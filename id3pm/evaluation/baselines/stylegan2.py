"""StyleGAN2's generator (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"), for inference.

Written from the paper; names and shapes of the weights are those of the PyTorch port `stylegan2-pytorch`, in which
checkpoints for it are shared. Golden-tested against that port. The stored noise is used, so that a latent has one
picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from id3pm.errors import CheckpointError

MAPPING_RATE = 0.01  # multiplier of the mapping network's learning rate, which its weights are stored without
SLOPE, GAIN, EPS = 0.2, math.sqrt(2.0), 1e-8
Weights = Mapping[str, Tensor]


class StyleGan2:
    """The generator.

    Args:
        weights: A state dict: `style.N.*`, `input.input`, `conv1.*`, `to_rgb1.*`, `convs.N.*`, `to_rgbs.N.*`,
            `noises.noise_N`.

    Raises:
        CheckpointError: A tensor is missing or has an unexpected shape.

    Attributes:
        latent_size: Z.
        image_size: Side of the pictures.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = {name: tensor.float() for name, tensor in weights.items()}
        self._levels = 0
        while f"to_rgbs.{self._levels}.bias" in weights:
            self._levels += 1
        self._layers = 0
        while f"style.{self._layers + 1}.weight" in weights:
            self._layers += 1
        if not self._levels or not self._layers:
            raise CheckpointError(
                "the state dict has no tensors style.1.weight and to_rgbs.0.bias: it is not StyleGAN2's generator"
            )
        self.latent_size: int = self._weights["style.1.weight"].shape[1]
        self.image_size = 4 << self._levels
        with torch.inference_mode():
            self._checked()

    def _checked(self) -> None:
        try:
            shape = tuple(self.images(torch.zeros(1, self.latent_size)).shape)
        except KeyError as error:
            raise CheckpointError(f"the state dict has no {error}, which StyleGAN2's generator has") from error
        except RuntimeError as error:
            raise CheckpointError(f"the state dict does not fit StyleGAN2's generator: {error}") from error
        assert shape == (1, 3, self.image_size, self.image_size), shape

    @torch.inference_mode()
    def images(self, z: Tensor) -> Tensor:
        """Pictures [N, 3, S, S], about -1 .. 1, of latents [N, Z]."""
        w = self._mapped(z)
        x = self._weights["input.input"].expand(len(z), -1, -1, -1)
        x = self._layer("conv1", x, w, self._noise(0))
        picture = self._to_rgb("to_rgb1", x, w)
        for level in range(self._levels):
            x = self._layer(f"convs.{2 * level}", x, w, self._noise(2 * level + 1), enlarge=True)
            x = self._layer(f"convs.{2 * level + 1}", x, w, self._noise(2 * level + 2))
            picture = _enlarged(picture) + self._to_rgb(f"to_rgbs.{level}", x, w)
        return picture

    def _mapped(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + EPS)
        for number in range(1, self._layers + 1):
            weight, bias = self._weights[f"style.{number}.weight"], self._weights[f"style.{number}.bias"]
            scale = MAPPING_RATE / math.sqrt(weight.shape[1])
            w = F.leaky_relu(F.linear(w, weight * scale, bias * MAPPING_RATE), SLOPE) * GAIN
        return w

    def _noise(self, number: int) -> Tensor:
        return self._weights[f"noises.noise_{number}"]

    def _layer(self, name: str, x: Tensor, w: Tensor, noise: Tensor, *, enlarge: bool = False) -> Tensor:
        x = self._modulated(f"{name}.conv", x, w, enlarge=enlarge, demodulate=True)
        x = x + self._weights[f"{name}.noise.weight"] * noise
        bias = self._weights[f"{name}.activate.bias"][:, None, None]
        return F.leaky_relu(x + bias, SLOPE) * GAIN

    def _to_rgb(self, name: str, x: Tensor, w: Tensor) -> Tensor:
        return self._modulated(f"{name}.conv", x, w, demodulate=False) + self._weights[f"{name}.bias"]

    def _modulated(self, name: str, x: Tensor, w: Tensor, *, demodulate: bool, enlarge: bool = False) -> Tensor:
        """Section 2.2 of the paper; modulation of the maps before and after one convolution for all rows."""
        weight = self._weights[f"{name}.weight"][0]
        weight = weight / math.sqrt(weight[0].numel())
        modulation = self._weights[f"{name}.modulation.weight"]
        styles = F.linear(w, modulation / math.sqrt(modulation.shape[1]), self._weights[f"{name}.modulation.bias"])
        x = x * styles[:, :, None, None]
        if enlarge:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = _filtered(x, (1, 1))
        else:
            x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        if demodulate:
            squares = (styles.square()[:, None] * weight.square().sum(dim=(2, 3))[None]).sum(dim=2)
            x = x * torch.rsqrt(squares + EPS)[:, :, None, None]
        return x


def _enlarged(x: Tensor) -> Tensor:
    """Twice the side: zeros between the pixels, then the filter."""
    count, channels, height, width = x.shape
    spread = x.new_zeros(count, channels, height, 2, width, 2)
    spread[:, :, :, 0, :, 0] = x
    return _filtered(spread.reshape(count, channels, 2 * height, 2 * width), (2, 1))


def _filtered(x: Tensor, pad: tuple[int, int]) -> Tensor:
    """The binomial filter 1 3 3 1 with gain 4, for maps that were enlarged."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
    kernel = (4.0 * line[:, None] * line)[None, None]
    count, channels, height, width = x.shape
    padded = F.pad(x.reshape(count * channels, 1, height, width), (pad[0], pad[1], pad[0], pad[1]))
    filtered = F.conv2d(padded, kernel)
    return filtered.reshape(count, channels, *filtered.shape[2:])
