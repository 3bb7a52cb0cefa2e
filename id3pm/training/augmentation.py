"""Random changes of training images and conditions: rotation, and conditions left out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from id3pm.unet.model import NULL_ATTRIBUTES


def turned(
    image: NDArray[np.uint8], points: NDArray[np.float64], degrees: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """An image [S, S, 3] and points [K, 2] in it, turned clockwise about its middle; corners mirror the picture."""
    import cv2  # for attributes alone

    middle = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, -degrees, 1.0)
    size = (image.shape[1], image.shape[0])
    picture = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return picture.astype(np.uint8), points @ matrix[:, :2].T + matrix[:, 2]


def drop_conditions(vectors: NDArray[np.float32], rate: float, null: float, rng: np.random.Generator) -> Tensor:
    """Replaces each row by the null vector with probability `rate` (Ho and Salimans 2022, algorithm 1)."""
    dropped = rng.random(len(vectors)) < rate
    return torch.from_numpy(np.where(dropped[:, None], np.float32(null), vectors.astype(np.float32)))


def drop_fields(vectors: NDArray[np.float32], rate: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Leaves a random part of the attribute fields unspecified, with probability `rate` for each row.

    Every field of such a row is kept with the row's own probability, drawn from 0 .. 1: so every number of fields from
    none to all is equally likely.
    """
    chosen = rng.random((len(vectors), 1)) < rate
    gone = rng.random(vectors.shape) < rng.random((len(vectors), 1))
    return np.where(chosen & gone, np.float32(NULL_ATTRIBUTES), vectors)
