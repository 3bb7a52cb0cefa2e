"""Identity loss, not in the paper: the cosine distance of the predicted face to its ID vector.

The paper's FR models are black boxes, and denoising alone teaches a network to use the ID vector, over millions of
images. If the graph of the FR model is available, its gradient teaches the same with a small part of them. The trained
network still takes ID vectors from any source; only this training needs the FR model's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from id3pm.errors import EngineError
from id3pm.face.align import ARCFACE_TEMPLATE, CROP_SIZE, similarity_transform
from id3pm.face.manifest import read_manifest
from id3pm.training.differentiable import DifferentiableGraph

INFORMATIVE_SHARES = (0.2, 0.97)
"""Shares of the image in the noisy image: below, the predicted face is a blur; above, it is nearly given."""


class IdentityLoss(nn.Module):
    """Aligns predicted images as `id3pm.face` does, embeds them, and compares.

    Args:
        faces: A face engine folder (`id3pm build-faces`).

    Raises:
        EngineError: The folder is not usable, its encoder has no gradient here, or wants other crops.
    """

    def __init__(self, faces: Path) -> None:
        super().__init__()
        manifest = read_manifest(faces)
        given = manifest.preprocessing
        if (given.alignment, given.fit, given.flip_average) != ("arcface-112", "crop", False):
            raise EngineError(
                f"{manifest.id_vector_model} has alignment={given.alignment!r}, fit={given.fit!r}, flip_average="
                f"{given.flip_average}: the identity loss knows arcface-112, crop and false; train without it"
            )
        self.id_vector_model = manifest.id_vector_model
        self._encoder = DifferentiableGraph(faces / manifest.encoder_file)
        self._bgr = given.channel_order == "BGR"
        for name, value in (("_mean", given.mean), ("_std", given.std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)

    def embed(self, images: Tensor, alignments: Tensor) -> Tensor:
        """ID vectors of images, differentiable.

        Args:
            images: [N, 3, S, S] in [-1, 1].
            alignments: float32 [N, 2, 3] of `crop_to_image`.

        Returns:
            float32 [N, D], L2 norm 1.
        """
        pixels = (images.float() + 1.0) * 127.5
        size = torch.tensor([images.shape[3], images.shape[2]], dtype=torch.float32, device=images.device)
        ticks = torch.arange(CROP_SIZE, dtype=torch.float32, device=images.device)
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ alignments[:, None].transpose(-1, -2)
        grid = (2.0 * points + 1.0) / size - 1.0  # pixel centres to grid_sample's [-1, 1] from edge to edge
        crops = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        crops = crops.flip(1) if self._bgr else crops
        mean, std = self.get_buffer("_mean"), self.get_buffer("_std")
        return F.normalize(self._encoder((crops - mean) / std), dim=1)

    def forward(self, predicted_x0: Tensor, alignments: Tensor, vectors: Tensor, image_share: Tensor) -> Tensor:
        """(1 - cosine similarity to the ID vectors) times the share of the image in the noisy one, [N].

        0 for rows whose vector is the null vector, and for those outside `INFORMATIVE_SHARES`, which are not embedded:
        the FR model costs as much as the network that is trained.

        Args:
            predicted_x0: [N, 3, S, S]; values beyond [-1, 1] are clipped, as the samplers do.
            alignments: See `embed`.
            vectors: What the U-Net was conditioned on, float32 [N, D].
            image_share: Share of the image in the variance of the noisy image (alphas_cumprod), float32 [N].
        """
        least, most = INFORMATIVE_SHARES
        informative = (vectors.any(dim=1) & (image_share >= least) & (image_share <= most)).nonzero()[:, 0]
        loss = predicted_x0.new_zeros(len(predicted_x0))
        if len(informative) == 0:
            return loss + 0.0 * predicted_x0.sum()  # every process of a group has a gradient
        similarity = F.cosine_similarity(
            self.embed(predicted_x0[informative].clamp(-1.0, 1.0), alignments[informative]), vectors[informative], dim=1
        )
        return loss.index_copy(0, informative, (1.0 - similarity) * image_share[informative])


def crop_to_image(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Where the pixels of the aligned crop lie in the image: the inverse of `id3pm.face.align`'s transform.

    Args:
        landmarks: [N, 5, 2], pixels of each image.

    Returns:
        float32 [N, 2, 3]: `matrix @ [x, y, 1]` moves a point of the crop into the image.
    """
    inverses = np.empty((len(landmarks), 2, 3), np.float32)
    for inverse, points in zip(inverses, landmarks, strict=True):
        forward = np.vstack([similarity_transform(points, ARCFACE_TEMPLATE), [0.0, 0.0, 1.0]])
        inverse[:] = np.linalg.inv(forward)[:2]
    return inverses
