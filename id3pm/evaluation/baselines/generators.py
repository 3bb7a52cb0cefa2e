"""Generators that GAN search can search: the GAN of the embedded data set, or a StyleGAN2 that the user brings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import CheckpointError, EngineError, InvalidInputError
from id3pm.evaluation.baselines.stylegan2 import StyleGan2
from id3pm.face.runtime import open_session
from id3pm.formats.hashing import file_sha256
from id3pm.training.gan import LATENT_SIZE, FaceGenerator, latents
from id3pm.unet.checkpoint import read_plain

MAX_SIDE = 256
"""Larger pictures are reduced to it: the face in them is larger than any FR model's input all the same."""
BATCH = 4  # pictures of a user's generator that are made together
NO_PICKLE = (
    "is a Python pickle, which could run any code when it is read: it is refused. Export the generator (z -> picture) "
    "to ONNX, or convert it, where you trust it, to a .pt state dict of stylegan2-pytorch"
)


class OwnGenerator:
    """A StyleGAN2 from a file; see `id3pm.evaluation.baselines.gan_search.Generator`.

    Args:
        file: ONNX: one input z [N, Z], one output [N, 3, S, S] in about -1 .. 1. Or `.pt`: a state dict of
            `stylegan2-pytorch`, alone or under `g_ema`; nothing but tensors is read.
        threads: CPU threads of ONNX.

    Raises:
        InvalidInputError: It is a pickle, or of another kind.
        CheckpointError: It is no state dict of StyleGAN2.
        EngineError: It is no ONNX network from latents to pictures.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        suffix = file.suffix.lower()
        if suffix == ".pkl":
            raise InvalidInputError(f"{file.name} {NO_PICKLE}")
        if suffix not in (".onnx", ".pt", ".pth"):
            raise InvalidInputError(f"{file.name}: a generator is an .onnx file or a .pt state dict")
        self._network: Any = _Onnx(file, threads) if suffix == ".onnx" else _state_dict(file)
        self.latent_size: int = self._network.latent_size
        self.weights_sha256 = file_sha256(file)

    def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Pictures uint8 [N, S, S, 3], RGB, of latents [N, Z]; S is at most `MAX_SIDE`."""
        made = []
        for start in range(0, len(z), BATCH):
            raw = self._network.images(torch.from_numpy(z[start : start + BATCH])).numpy()
            pixels = np.rint(np.clip((raw + 1.0) * 127.5, 0.0, 255.0)).astype(np.uint8).transpose(0, 2, 3, 1)
            made += [_reduced(np.ascontiguousarray(image)) for image in pixels]
        return np.stack(made)

    def latents(self, indices: list[int], seed: int) -> NDArray[np.float32]:
        """Standard normal z of these numbers, [N, Z]: row i is a function of (seed, indices[i]) alone."""
        rows = [
            np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64))).standard_normal(
                self.latent_size, dtype=np.float32
            )
            for index in indices
        ]
        return np.stack(rows)


class EmbeddedGenerator(FaceGenerator):
    """The 64 px GAN of the embedded data set.

    Latents are normalised first, as StyleGAN2 does itself: a search that adds noise again and again would leave the
    norm that this GAN was trained with, and its pictures would be saturated.
    """

    latent_norm = math.sqrt(LATENT_SIZE)

    def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """See `FaceGenerator.images`."""
        norms = np.linalg.norm(z, axis=1, keepdims=True)
        return super().images((self.latent_norm * z / norms).astype(np.float32))

    def latents(self, indices: list[int], seed: int) -> NDArray[np.float32]:
        """See `OwnGenerator.latents`."""
        return latents(seed, indices)


class _Onnx:
    """An ONNX file as a network from latents to pictures."""

    def __init__(self, file: Path, threads: int | None) -> None:
        self._session = open_session(file, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [list(each.shape) for each in (*inputs, *outputs)]
        if len(inputs) != 1 or len(outputs) != 1 or len(shapes[0]) != 2 or len(shapes[1]) != 4:
            raise EngineError(
                f"{file.name} has inputs and outputs of shapes {shapes}: need one input z [N, Z] and one output "
                "[N, 3, S, S]"
            )
        if not isinstance(shapes[0][1], int):
            raise EngineError(f"{file.name}: the size of z must be fixed, it is {shapes[0][1]!r}")
        self._input = inputs[0].name
        self.latent_size: int = shapes[0][1]
        # A network that was exported with one batch size gets its rows one at a time.
        self._one_by_one = isinstance(shapes[0][0], int)
        if isinstance(shapes[0][0], int) and shapes[0][0] != 1:
            raise EngineError(f"{file.name}: the batch must be free, or 1; it is {shapes[0][0]}")
        found = self.images(torch.zeros(1, self.latent_size)).shape
        if found[1] != 3 or found[2] != found[3]:
            raise EngineError(f"{file.name} gives {tuple(found)}: need square RGB pictures [N, 3, S, S]")

    def images(self, z: torch.Tensor) -> torch.Tensor:
        rows = list(z[:, None]) if self._one_by_one else [z]
        return torch.cat(
            [torch.from_numpy(self._session.run(None, {self._input: row.numpy()})[0]).float() for row in rows]
        )


def _state_dict(file: Path) -> StyleGan2:
    found = read_plain(file)
    found = found.get("g_ema", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise CheckpointError(f"{file.name} must hold a state dict of tensors, alone or under g_ema")
    try:
        return StyleGan2(found)
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from error


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape[0] <= MAX_SIDE:
        return image
    return np.asarray(Image.fromarray(image).resize((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX))
