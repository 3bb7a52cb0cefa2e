"""Interpolations by every method with equal steps: the counterpart of Fig. 5 of the paper's supplement.

ID vectors on the great circle between two people, the same seed for each image, as there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.black_box import Floats
from id3pm.evaluation.baselines.judging import Judges
from id3pm.idspace.vectors import slerp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothness:
    """How a method moves between two people.

    Attributes:
        targets: Name of the set.
        method: Its name.
        similarity: Mean cosine of the images with the ID vectors that were asked for.
        step: Mean cosine distance of the ID vectors of neighbouring images.
        largest: The largest of these steps in means: 1 is an even way.
        pixels: Mean absolute difference of neighbouring images, 0 .. 255.
    """

    targets: str
    method: str
    similarity: float
    step: float
    largest: float
    pixels: float


def way(first: Floats, second: Floats, count: int) -> Floats:
    """ID vectors [count, D] from one person to another in equal steps, both included; norms go along."""
    shares = np.linspace(0.0, 1.0, count)
    norms = (1.0 - shares) * np.linalg.norm(first) + shares * np.linalg.norm(second)
    between: Floats = (slerp(first, second, shares) * norms[:, None]).astype(np.float32)
    between[0], between[-1] = first, second  # as they are: images of people that were made are not made again
    return between


def smoothness(
    targets: str, method: str, vectors: Floats, images: NDArray[np.uint8], judges: Judges, *, aligned: bool
) -> Smoothness:
    """Measures a row of images.

    Args:
        targets: Name of the set.
        method: Its name.
        vectors: ID vectors that were asked for, [T, D].
        images: uint8 [T, H, W, 3].
        judges: The first one looks.
        aligned: The images are crops of 112 px.
    """
    made, cosines = judges.seen(vectors, list(images), aligned=aligned)
    steps = 1.0 - (made[:-1] * made[1:]).sum(axis=1)
    seen = steps[np.isfinite(steps)]
    step = float(seen.mean()) if len(seen) else float("nan")
    known = cosines[np.isfinite(cosines)]
    return Smoothness(
        targets=targets,
        method=method,
        similarity=float(known.mean()) if len(known) else float("nan"),
        step=step,
        largest=float(seen.max()) / step if len(seen) and step > 0.0 else float("nan"),
        pixels=float(np.abs(np.diff(images.astype(np.float32), axis=0)).mean()),
    )
