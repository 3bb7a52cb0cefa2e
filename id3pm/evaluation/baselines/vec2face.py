"""Vec2Face (Duong et al. 2020, "Vec2Face: Unveil Human Faces from their Blackbox Features"), after its description.

The authors published no code. What their description names is here: a student that is distilled from the black box and
gives the gradients that the black box does not; a generator that takes the vector at every scale, with weights that
fall exponentially from coarse to fine; an adversarial, an identity and a metric loss. `DEVIATIONS` says what differs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

IMAGE_SIZE, FIRST_SIDE = 64, 4
GENERATOR_WIDTHS = (192, 96, 64, 32, 16)  # at 4, 8, 16, 32, 64 px
STUDENT_WIDTHS = (32, 64, 128, 192)  # at 32, 16, 8, 4 px
SLOPE = 0.2  # of the leaky ReLUs
DECAY = 0.5
"""Rate of the exponential weights: scale k takes the vector with exp(-DECAY k)."""
DEVIATIONS = (
    "no bijective metric: distances of pictures are taken between pixels, not in the space of a normalising flow",
    "trained with one picture of each person and its mirror image, or with pictures that ID3PM made (--labelled)",
    "the student is distilled by its last vector alone, not by maps in between",
    "64 px generated faces instead of CASIA-WebFace; widths, rates and weights of the losses are our own",
)
PAPER_RANKS = (
    "The ID3PM paper's user study (supplement, Table 3, images of the Vec2Face paper) has mean ranks 1 .. 5 for "
    "identity and realism of 3.51 and 3.80 for Vec2Face; for ID3PM with FaceNet 2.665 and 1.52, with InsightFace 3.50 "
    "and 3.23; trained on CASIA-WebFace, as Vec2Face was, 2.87 and 3.10 with FaceNet, 2.46 and 3.36 with InsightFace"
)


def scale_weights(scales: int, decay: float = DECAY) -> list[float]:
    """Weights of the vector from coarse to fine: exp(-decay k)."""
    return [math.exp(-decay * scale) for scale in range(scales)]


class Generator(nn.Module):
    """ID vectors [N, D] of norm 1 -> pictures [N, 3, 64, 64] in [-1, 1].

    Args:
        identity_dim: D.
        widths: Channels at 4, 8, ... pixels.
    """

    def __init__(self, identity_dim: int, widths: tuple[int, ...] = GENERATOR_WIDTHS) -> None:
        super().__init__()
        self.first = nn.Linear(identity_dim, widths[0] * FIRST_SIDE**2)
        weights = scale_weights(len(widths))
        inputs = (widths[0], *widths[:-1])
        self.scales = nn.ModuleList(
            _Scale(before, width, identity_dim, weight)
            for before, width, weight in zip(inputs, widths, weights, strict=True)
        )
        self.picture = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        # A unit vector's numbers are small: brought to variance 1, layers begin as usual.
        vectors = vectors * math.sqrt(vectors.shape[1])
        x = self.first(vectors).reshape(len(vectors), -1, FIRST_SIDE, FIRST_SIDE)
        for number, scale in enumerate(self.scales):
            x = scale(F.interpolate(x, scale_factor=2.0, mode="nearest") if number else x, vectors)
        return torch.tanh(self.picture(x))


class _Scale(nn.Module):
    """One scale: a convolution whose normalised maps the vector scales and shifts, with a fixed weight."""

    def __init__(self, inputs: int, outputs: int, identity_dim: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(identity_dim, 2 * outputs)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)
        self.norm = nn.GroupNorm(min(8, outputs), outputs)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        gain, shift = (self.weight * self.modulation(vectors))[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu((1.0 + gain) * self.norm(self.convolution(x)) + shift, SLOPE)


class Student(nn.Module):
    """Pictures [N, 3, 64, 64] in [-1, 1] -> unit vectors [N, D], as the black box gives them."""

    def __init__(self, identity_dim: int, widths: tuple[int, ...] = STUDENT_WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
        side = IMAGE_SIZE >> len(widths)
        self.maps = nn.Sequential(*layers)
        self.vector = nn.Linear(widths[-1] * side**2, identity_dim)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return F.normalize(self.vector(self.maps(images).flatten(1)), dim=1)


class Discriminator(nn.Module):
    """Pictures [N, 3, 64, 64] in [-1, 1] -> scores [N], high for real ones."""

    def __init__(self, widths: tuple[int, ...] = STUDENT_WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *widths[:-1]), widths, strict=True):
            layers += [spectral_norm(nn.Conv2d(before, width, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
        self.maps = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Linear(widths[-1] * (IMAGE_SIZE >> len(widths)) ** 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.score(self.maps(images).flatten(1))[:, 0]
        return scores


def metric_loss(made: Tensor, images: Tensor, vectors: Tensor) -> Tensor:
    """How far distances of pictures are out of step with distances of vectors.

    Mean over all pairs (i, j) of (|G(v_i) - x_j| / p - |v_i - v_j| / q)^2, where p and q are the mean distances of two
    of the real pictures and of two vectors. For i = j it asks for the picture itself.

    Args:
        made: G(v), [N, 3, S, S].
        images: x, [N, 3, S, S].
        vectors: v, [N, D].
    """
    of_vectors = torch.cdist(vectors, vectors)
    others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    pixels = images.flatten(1)
    real = torch.cdist(pixels, pixels)[others].mean()
    distances = torch.cdist(made.flatten(1), pixels)
    return (distances / real - of_vectors / of_vectors[others].mean()).square().mean()
