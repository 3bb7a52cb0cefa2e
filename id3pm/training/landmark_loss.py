"""Landmark loss, not in the paper: the distance of the predicted face from the requested attributes.

It does for attribute set `landmarks` what `id3pm.training.identity_loss` does for the ID vector: denoising alone takes
hundreds of thousands of images to teach a network that a number means the turn of the head. The landmarks of its
predictions teach it in thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.attributes import fields_of
from id3pm.face.align import ARCFACE_TEMPLATE, similarity_transform
from id3pm.face.landmarks import CROP, FIRST_TEMPLATE
from id3pm.face.measures import BROWS, EYE_CORNERS, EYES, LOWER_LIP, MOUTH_CORNERS, RANGES, REFERENCE, RIGID, UPPER_LIP
from id3pm.training.landmark_network import LandmarkNetwork
from id3pm.unet.model import NULL_ATTRIBUTES

INFORMATIVE_SHARES = (0.01, 0.9)
"""Shares of the image in the noisy image; lower than for identity, because pose is decided at high noise."""
FIELD_WEIGHTS = {"roll": 8.0, "yaw": 4.0, "pitch": 2.0}
"""Weights other than 1. Turning the head, mainly left or right, breaks the symmetry of what the network has learned,
and is learned last. Only those faces of the demo set are tilted that training rotates."""


class LandmarkLoss(nn.Module):
    """Measures predicted images as `id3pm.face.measures` does, differentiably, and compares them with the requested
    attributes.

    Args:
        model: See `LandmarkNetwork`.
        resting: Values that count as requested if a field is left free, in its unit.

    Raises:
        MissingExtraError, EngineError: See `LandmarkNetwork`.
    """

    def __init__(self, model: Path | None = None, resting: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self._network = LandmarkNetwork(model)
        fields, resting = fields_of("landmarks"), resting or {}
        self._names = [field.name for field in fields]
        # The crop that `align_face` makes is known for every image; this one lies in it at a fixed place.
        inside = np.vstack([similarity_transform(FIRST_TEMPLATE, ARCFACE_TEMPLATE), [0.0, 0.0, 1.0]])
        tables = {
            "_inside": inside,
            "_reference": REFERENCE - REFERENCE.mean(axis=0),
            "_offset": np.array([field.offset for field in fields]),
            "_scale": np.array([field.scale for field in fields]),
            "_weights": np.array([FIELD_WEIGHTS.get(field.name, 1.0) for field in fields]),
            "_resting": np.array(
                [(resting[f.name] - f.offset) / f.scale if f.name in resting else NULL_ATTRIBUTES for f in fields]
            ),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(table, dtype=torch.float32), persistent=False)

    def measure(self, images: Tensor, alignments: Tensor) -> Tensor:
        """Attribute vectors of images, float32 [N, 7].

        Args:
            images: [N, 3, S, S] in [-1, 1].
            alignments: float32 [N, 2, 3] of `id3pm.training.identity_loss.crop_to_image`.
        """
        size = torch.tensor([images.shape[3], images.shape[2]], dtype=torch.float32, device=images.device)
        ticks = torch.arange(CROP, dtype=torch.float32, device=images.device)
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        moves = alignments @ self.get_buffer("_inside")
        points = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ moves[:, None].transpose(-1, -2)
        grid = (2.0 * points + 1.0) / size - 1.0  # pixel centres to grid_sample's [-1, 1] from edge to edge
        crops = F.grid_sample((images.float() + 1.0) / 2.0, grid, padding_mode="border", align_corners=False)
        values = self._measures(self._network(crops))
        values["roll"] = values["roll"] + torch.atan2(alignments[:, 1, 0], alignments[:, 0, 0]).rad2deg()
        vector = torch.stack([values[name] for name in self._names], dim=1)
        return (vector - self.get_buffer("_offset")) / self.get_buffer("_scale")

    def _measures(self, points: Tensor) -> dict[str, Tensor]:
        """`id3pm.face.measures.measure` in PyTorch."""
        rigid = points[:, RIGID]
        means = rigid.mean(dim=1, keepdim=True)
        reference = self.get_buffer("_reference")
        u, singular, vt = torch.linalg.svd((rigid - means).transpose(1, 2) @ reference)
        signs = torch.ones_like(singular)
        signs[:, 2] = torch.sign(torch.det(u.detach()) * torch.det(vt.detach()))
        rotations = u * signs[:, None] @ vt
        scales = (singular * signs).sum(dim=1) / reference.square().sum()
        head = (points - means) @ rotations / scales[:, None, None]
        corners = head[:, MOUTH_CORNERS]
        lids = [_distance(head, *lid) / _distance(head, *corner) for corner, lid in EYES]
        shares = {
            "mouth_open": _distance(head, UPPER_LIP, LOWER_LIP),
            "smile": _distance(head, *MOUTH_CORNERS) + 3.0 * (head[:, UPPER_LIP, 1] - corners[:, :, 1].mean(dim=1)),
            "eyes_open": (lids[0] + lids[1]) / 2,
            "brows": head[:, EYE_CORNERS, 1].mean(dim=1) - head[:, BROWS, 1].mean(dim=1),
        }
        degrees = {
            "roll": torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0]),
            "yaw": torch.asin(rotations[:, 2, 0].clamp(-0.999, 0.999)),
            "pitch": -torch.atan2(rotations[:, 2, 1], rotations[:, 2, 2]),
        }
        return {name: value.rad2deg() for name, value in degrees.items()} | {
            name: (value - RANGES[name][0]) / (RANGES[name][1] - RANGES[name][0]) for name, value in shares.items()
        }

    def forward(self, predicted_x0: Tensor, alignments: Tensor, attributes: Tensor, image_share: Tensor) -> Tensor:
        """Distance from the requested attributes, times the square root of the image's share, [N].

        That is the mean over the fields that are given or have a resting value, weighted by `FIELD_WEIGHTS`.

        0 for rows without any, and for those outside `INFORMATIVE_SHARES`. The root gives a step of the noise
        prediction the same weight at all shares.

        Args:
            predicted_x0: [N, 3, S, S]; values beyond [-1, 1] are clipped, as the samplers do.
            alignments: See `measure`.
            attributes: What the U-Net was conditioned on, float32 [N, 7].
            image_share: Share of the image in the variance of the noisy image (alphas_cumprod), float32 [N].
        """
        least, most = INFORMATIVE_SHARES
        weights = self.get_buffer("_weights")
        wanted = torch.where(attributes == NULL_ATTRIBUTES, self.get_buffer("_resting"), attributes)
        given = wanted != NULL_ATTRIBUTES
        informative = (given.any(dim=1) & (image_share >= least) & (image_share <= most)).nonzero()[:, 0]
        loss = predicted_x0.new_zeros(len(predicted_x0))
        if len(informative) == 0:
            return loss + 0.0 * predicted_x0.sum()  # every process of a group has a gradient
        found = self.measure(predicted_x0[informative].clamp(-1.0, 1.0), alignments[informative])
        given = given[informative]
        apart = F.smooth_l1_loss(found, wanted[informative], reduction="none")
        distance = (apart * given * weights).sum(dim=1) / given.sum(dim=1)
        return loss.index_copy(0, informative, distance * image_share[informative].sqrt())


def _distance(head: Tensor, a: int, b: int) -> Any:
    return (head[:, a] - head[:, b]).square().sum(dim=1).clamp(min=1e-8).sqrt()
