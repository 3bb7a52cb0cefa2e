"""Framing: from a photograph to a square picture with the face at a fixed place."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import MissingExtraError
from id3pm.face.align import similarity_transform
from id3pm.installation import how_to_install

Crop = Literal["face", "whole"]
LANDMARKS_IN_FRAME = np.array([[0.375, 0.46], [0.625, 0.46], [0.5, 0.60], [0.40, 0.72], [0.60, 0.72]])
"""Where eyes, nose tip and mouth corners lie in a crop, in widths: head and hair in the frame, as in FFHQ's crops."""


def framed(
    photo: NDArray[np.uint8], detection: NDArray[np.float32], size: int, crop: Crop
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A training image and its face.

    Args:
        photo: uint8 [H, W, 3].
        detection: float32 [15] in pixels of `photo`; see `id3pm.face.detect.DETECTION_SIZE`.
        size: Side of the image in pixels.
        crop: `face`: upright, eyes at one place, with the head. `whole`: the middle square, for data sets that are
            aligned already, as FFHQ is.

    Returns:
        uint8 [size, size, 3], and the detection in its pixels.
    """
    landmarks = detection[4:14].reshape(5, 2)
    if crop == "face":
        matrix = similarity_transform(landmarks, LANDMARKS_IN_FRAME * float(size))
        return framed_face(photo, landmarks, size), moved(detection, matrix)
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cv2 = _opencv()
    square = photo[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    scale = size / side
    shift = scale * (0.5 - np.array([left, top])) - 0.5  # coordinates count the centres of pixels
    matrix = np.column_stack([scale * np.eye(2), shift])
    return cv2.resize(square, (size, size), interpolation=how), moved(detection, matrix)


def framed_face(photo: NDArray[np.uint8], landmarks: NDArray[np.floating[Any]], size: int) -> NDArray[np.uint8]:
    """The face with its head, upright, eyes at one place: uint8 [size, size, 3].

    Args:
        photo: uint8 [H, W, 3].
        landmarks: [5, 2], pixels of `photo`.
        size: Side of the result in pixels. What lies outside the photo repeats its border.
    """
    cv2 = _opencv()
    frame: NDArray[np.float64] = LANDMARKS_IN_FRAME * float(size)
    matrix = similarity_transform(landmarks, frame)
    factor = int(1.0 / np.hypot(matrix[0, 0], matrix[1, 0]))
    if factor >= 2:  # average first: sampling a far larger photo at single points would alias
        height, width = photo.shape[0] // factor, photo.shape[1] // factor
        photo = cv2.resize(photo[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
        matrix = similarity_transform((landmarks + 0.5) / factor - 0.5, frame)
    crop: NDArray[np.uint8] = cv2.warpAffine(
        photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop


def moved(detection: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """A detection [15] after an affine transform [2, 3] of the picture; a turned box becomes the box around it."""
    x, y, width, height = detection[:4]
    corners = np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]], np.float64)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    landmarks = detection[4:14].reshape(5, 2) @ matrix[:, :2].T + matrix[:, 2]
    low, high = corners.min(axis=0), corners.max(axis=0)
    result: NDArray[np.float32] = np.concatenate([low, high - low, landmarks.ravel(), detection[14:]], dtype=np.float32)
    return result


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"face alignment needs OpenCV: {how_to_install('face')}") from error
    return cv2
