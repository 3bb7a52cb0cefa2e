"""An optional loss that the paper does not have: how far the landmarks of the predicted face lie from where they were.

It does for attributes what `id3pm.training.identity_loss` does for the ID vector: denoising alone takes hundreds of
thousands of images to teach a network that a number means the turn of the head; the landmarks of what it predicts say
so in thousands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.face.align import ARCFACE_TEMPLATE, similarity_transform
from id3pm.face.landmarks import CROP, FIRST_LOOK
from id3pm.training.landmark_network import LandmarkNetwork
from id3pm.unet.model import NULL_ATTRIBUTES

TELLING_SHARES = (0.01, 0.9)
"""Of the image in the noisy image; lower than for identity, because pose is decided where most is noise still."""
EYE_DISTANCE = 60.0  # between the eyes of the crop, in its pixels


class LandmarkLoss(nn.Module):
    """Finds landmarks in predicted images and in the true ones, and compares.

    Args:
        model: See `LandmarkNetwork`.

    Raises:
        MissingExtraError, EngineError: See `LandmarkNetwork`.
    """

    def __init__(self, model: Path | None = None) -> None:
        super().__init__()
        self._network = LandmarkNetwork(model)
        # The crop that `align_face` makes is known for every image; this one lies in it at a fixed place.
        inside = np.vstack([similarity_transform(FIRST_LOOK, ARCFACE_TEMPLATE), [0.0, 0.0, 1.0]])
        self.register_buffer("_inside", torch.tensor(inside, dtype=torch.float32), persistent=False)

    def find(self, images: Tensor, alignments: Tensor) -> Tensor:
        """Landmarks of images, differentiable.

        Args:
            images: [N, 3, S, S] in [-1, 1].
            alignments: float32 [N, 2, 3] of `id3pm.training.identity_loss.crop_to_image`.

        Returns:
            float32 [N, 468, 3] in distances between the eyes, in the aligned face.
        """
        size = torch.tensor([images.shape[3], images.shape[2]], dtype=torch.float32, device=images.device)
        ticks = torch.arange(CROP, dtype=torch.float32, device=images.device)
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        moves = alignments @ self.get_buffer("_inside")
        points = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ moves[:, None].transpose(-1, -2)
        grid = (2.0 * points + 1.0) / size - 1.0  # pixel centres to grid_sample's [-1, 1] from edge to edge
        crops = F.grid_sample((images.float() + 1.0) / 2.0, grid, padding_mode="border", align_corners=False)
        found: Tensor = self._network(crops)
        return found / EYE_DISTANCE

    def forward(
        self, predicted_x0: Tensor, x0: Tensor, alignments: Tensor, attributes: Tensor, image_share: Tensor
    ) -> Tensor:
        """Mean distance of the landmarks along each axis, times the square root of the image's share, [N].

        0 for rows without attributes, and for those outside `TELLING_SHARES`. The root makes a step of the noise
        prediction count alike at all shares.

        Args:
            predicted_x0: [N, 3, S, S]; values beyond [-1, 1] are clipped, as the samplers do.
            x0: The true images.
            alignments: See `find`.
            attributes: What the U-Net was conditioned on, float32 [N, A].
            image_share: Share of the image in the variance of the noisy image (alphas_cumprod), float32 [N].
        """
        least, most = TELLING_SHARES
        given = (attributes != NULL_ATTRIBUTES).any(dim=1)
        telling = (given & (image_share >= least) & (image_share <= most)).nonzero()[:, 0]
        loss = predicted_x0.new_zeros(len(predicted_x0))
        if len(telling) == 0:
            return loss + 0.0 * predicted_x0.sum()  # every process of a group has a gradient
        with torch.no_grad():
            true = self.find(x0[telling], alignments[telling])
        found = self.find(predicted_x0[telling].clamp(-1.0, 1.0), alignments[telling])
        distance = (found - true).abs().mean(dim=(1, 2))
        return loss.index_copy(0, telling, distance * image_share[telling].sqrt())
