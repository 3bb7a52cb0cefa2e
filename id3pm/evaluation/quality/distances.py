"""Distances between two sets of features.

Frechet distance (Heusel et al. 2017), kernel distance (Binkowski et al. 2018), precision and recall (Kynkaanniemi et
al. 2019), as torch-fidelity 0.4 computes them; golden-tested against it. Which name they deserve depends on the
features: FID and KID are of Inception's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError

NEIGHBOUR = 3
"""Radius of a feature's ball: distance to the third nearest other one, as in Kynkaanniemi et al. and in
guided-diffusion's evaluator."""
KERNEL_SUBSETS, KERNEL_SEED, KERNEL_SUBSET_SIZE = 100, 2020, 1000  # torch-fidelity's
ROWS = 1000  # of a block of the distance matrix: 8 MB per 1000 columns
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """How far one set of images is from another.

    Attributes:
        frechet: Frechet distance of two Gaussians.
        kernel: Squared maximum mean discrepancy with the cubic kernel, unbiased, mean over `KERNEL_SUBSETS` subsets.
        kernel_std: Its standard deviation over the subsets.
        precision: Share of the images inside of the reference's manifold.
        recall: Share of the reference inside of the images' manifold.
        count: Images in either set.
    """

    frechet: float
    kernel: float
    kernel_std: float
    precision: float
    recall: float
    count: int


def quality(images: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]]) -> Quality:
    """All distances.

    Args:
        images: Features of generated images, [N, D].
        reference: Features of real images, [N, D]. Both sets must have one size: the distances depend on it.

    Raises:
        InvalidInputError: The sizes differ, or are below ten.
    """
    if images.shape != reference.shape or len(images) < 10:
        raise InvalidInputError(
            f"features of shapes {images.shape} and {reference.shape}: need two sets of one size, ten or more"
        )
    first, second = images.astype(np.float64), reference.astype(np.float64)
    kernel = kernel_distances(first, second, min(KERNEL_SUBSET_SIZE, len(first) // 2))
    precision, recall = precision_recall(first, second)
    return Quality(
        frechet=frechet_distance(first, second),
        kernel=float(kernel.mean()),
        kernel_std=float(kernel.std()),
        precision=precision,
        recall=recall,
        count=len(first),
    )


def frechet_distance(first: Floats, second: Floats) -> float:
    """Frechet distance of two sets of features [N, D] and [M, D]: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    The eigenvalues of S1 S2 are the squared singular values of C1 C2' with C'C = S. So no root of a matrix that is
    nearly singular is taken, and sets smaller than D cost less.
    """
    mean_1, mean_2 = first.mean(axis=0), second.mean(axis=0)
    root_1, root_2 = _covariance_root(first - mean_1), _covariance_root(second - mean_2)
    trace_of_root = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    gap = mean_1 - mean_2
    return float(gap @ gap + np.square(root_1).sum() + np.square(root_2).sum() - 2.0 * trace_of_root)


def _covariance_root(centred: Floats) -> Floats:
    """C [min(N, D), D] with C'C the covariance (ddof 1) of centred features [N, D]."""
    root: Floats = np.linalg.qr(centred, mode="r") / np.sqrt(len(centred) - 1)
    return root


def kernel_distances(
    first: Floats, second: Floats, subset_size: int, subsets: int = KERNEL_SUBSETS, seed: int = KERNEL_SEED
) -> Floats:
    """Unbiased squared MMD with the kernel (x'y / D + 1)^3 of random subsets, [subsets]."""
    random = np.random.RandomState(seed)  # torch-fidelity's generator, so that its subsets are ours
    found = np.empty(subsets)
    for row in range(subsets):
        x = first[random.choice(len(first), subset_size, replace=False)]
        y = second[random.choice(len(second), subset_size, replace=False)]
        xx, yy, xy = _cubic(x, x), _cubic(y, y), _cubic(x, y)
        within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
        found[row] = within / (subset_size * (subset_size - 1)) - 2.0 * xy.mean()
    return found


def _cubic(x: Floats, y: Floats) -> Floats:
    kernel: Floats = (x @ y.T / x.shape[1] + 1.0) ** 3
    return kernel


def precision_recall(images: Floats, reference: Floats, neighbour: int = NEIGHBOUR) -> tuple[float, float]:
    """Shares of images [N, D] in the reference's [M, D] manifold, and of the reference in the images' manifold."""
    return (
        _share_inside(images, reference, _radii(reference, neighbour)),
        _share_inside(reference, images, _radii(images, neighbour)),
    )


def _radii(features: Floats, neighbour: int) -> Floats:
    """Squared distance of each feature to its k-th nearest other one, [N]."""
    parts = [
        np.partition(_squared_distances(features[start : start + ROWS], features), neighbour, axis=1)[:, neighbour]
        for start in range(0, len(features), ROWS)
    ]
    return np.concatenate(parts)


def _share_inside(points: Floats, centres: Floats, radii: Floats) -> float:
    inside = [
        (_squared_distances(points[start : start + ROWS], centres) <= radii).any(axis=1)
        for start in range(0, len(points), ROWS)
    ]
    return float(np.concatenate(inside).mean())


def _squared_distances(first: Floats, second: Floats) -> Floats:
    squares = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1) - 2.0 * first @ second.T
    positive: Floats = np.maximum(squares, 0.0)
    return positive
