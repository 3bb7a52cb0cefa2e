"""What compares a student's images with the teacher's: features of the teacher's own encoder, and a critic on them.

The encoder is frozen, looks at images through noise, and knows the conditions. So it needs no other network, and works
for any bundle. As in "Projected GANs" (Sauer et al. 2021) and latent adversarial diffusion distillation (Sauer et al.
2024), only small heads on its features are trained: they learn what tells the student's images from the teacher's, and
the student learns to leave no such trace. Regression alone gives the mean of all images that the noise could mean,
which is blurred.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.unet.layers import timestep_embedding
from id3pm.unet.model import GUIDANCE_FACTOR

WIDTH = 32  # channels of a head
GROUPS = 8
Maps = list[Tensor]


class Critic(nn.Module):
    """One small head on each feature map of the teacher's encoder.

    Args:
        channels: Of each map.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(count) for count in channels)

    def forward(self, maps: Maps, guidance: Tensor | None) -> list[Tensor]:
        """Logits, above 0 for the teacher's images.

        Args:
            maps: float32 [N, C, H, W] each.
            guidance: Guidance scales [N], where the student has them.

        Returns:
            float32 [N, H / 2, W / 2] for each map.
        """
        known = maps[0].new_zeros(len(maps[0])) if guidance is None else guidance
        scale = timestep_embedding(GUIDANCE_FACTOR * known, WIDTH)
        return [head(one, scale) for head, one in zip(self.heads, maps, strict=True)]


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, WIDTH, 1)
        self.scale = nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, WIDTH) for _ in range(2))
        self.middle = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.last = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        first, second = self.norms
        h = F.leaky_relu(first(self.first(x) + self.scale(scale)[:, :, None, None]), 0.2)
        h = F.leaky_relu(second(self.middle(h)), 0.2)
        logits: Tensor = self.last(h)
        return logits[:, 0]


def teacher_loss(logits: Sequence[Tensor]) -> Tensor:
    """The student's loss: the critic should take its images for the teacher's."""
    return -torch.stack([one.mean() for one in logits]).mean()


def critic_loss(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """The critic's hinge loss (Lim and Ye 2017)."""
    parts = [F.relu(1.0 - one).mean() + F.relu(1.0 + other).mean() for one, other in zip(real, made, strict=True)]
    return torch.stack(parts).mean()


def feature_distance(maps: Maps, others: Maps) -> Tensor:
    """Mean squared distance of features whose channels have norm 1 at each place, [N] (as LPIPS, Zhang et al. 2018)."""
    parts = [
        (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
        for one, other in zip(maps, others, strict=True)
    ]
    return torch.stack(parts).mean(dim=0)
