"""Alignment: the similarity transform that moves five landmarks onto a template, and the crop it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import MissingExtraError

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Landmarks of an aligned 112x112 face (ArcFace, Deng et al. 2019; also SFace): eyes, nose tip, mouth corners."""
CROP_SIZE = 112


def similarity_transform(source: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The rotation, uniform scale and translation that move `source` onto `target` with least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40-43.

    Args:
        source: [K, 2] points, K >= 2, not all the same.
        target: [K, 2] points.

    Returns:
        float64 [2, 3]: `matrix @ [x, y, 1]` is the moved point.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    # A face is never mirrored by alignment: the reflection that fits best is turned into the best rotation (eq. 43).
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / ((source - source_mean) ** 2).sum(axis=1).mean()
    translation = target_mean - scale * rotation @ source_mean
    return np.concatenate([scale * rotation, translation[:, None]], axis=1)


def align_face(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating[Any]], antialias: bool = True
) -> NDArray[np.uint8]:
    """The 112x112 crop in which the five landmarks lie on `ARCFACE_TEMPLATE`; outside the picture it is black.

    Args:
        image: uint8 [H, W, 3].
        landmarks: [5, 2], pixels of `image`.
        antialias: First shrink a face that is more than twice the crop's size by averaging whole blocks of pixels.
            Bilinear sampling alone (what OpenCV's `FaceRecognizerSF.alignCrop` does) skips pixels there, and the ID
            vector would change with the resolution of the photo. Smaller faces are sampled exactly as OpenCV does.

    Returns:
        uint8 [112, 112, 3], channel order of `image`.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("face alignment needs OpenCV: pip install 'id3pm[face]'") from error
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE)
    # Only the face's surroundings are touched: cheaper, and OpenCV refuses to warp sides above 32767 pixels.
    left, top, image = _surroundings(image, matrix)
    landmarks = landmarks - (left, top)
    factor = int(1.0 / np.hypot(matrix[0, 0], matrix[1, 0])) if antialias else 1
    if factor >= 2:
        size = (-(-image.shape[1] // factor), -(-image.shape[0] // factor))
        bottom, right = size[1] * factor - image.shape[0], size[0] * factor - image.shape[1]
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        landmarks = (landmarks + 0.5) / factor - 0.5  # coordinates count the centres of pixels
    crop: NDArray[np.uint8] = cv2.warpAffine(
        image, similarity_transform(landmarks, ARCFACE_TEMPLATE), (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR
    )
    return crop


def _surroundings(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], margin: int = 4
) -> tuple[int, int, NDArray[np.uint8]]:
    """Left, top and pixels of the part of the picture that the crop of this transform shows, and a margin."""
    corners = np.array([[0, 0], [CROP_SIZE, 0], [0, CROP_SIZE], [CROP_SIZE, CROP_SIZE]])
    inside = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(inside.min(axis=0)) - margin, 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.ceil(inside.max(axis=0)).astype(int) + margin
    return left, top, image[top : max(bottom, top + 1), left : max(right, left + 1)]
