"""Faces in pictures: ID vectors and detections of many at a time, and the square around one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from id3pm.face.detect import DETECTION_SIZE
from id3pm.face.stage import FaceResult, FaceStage

HEAD_MARGIN = 1.5
"""Side of a square around a face that shows the head as generated faces do, in sides of the face's box."""
FILLED = 0.85
"""A square picture of which the square around the face would take this share or more is taken whole."""


def largest_faces(stage: FaceStage, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The largest face in each of the pictures uint8 [N, H, W, 3].

    Returns:
        ID vectors [N, D] and detections [N, 15] (`id3pm.face.detect.DETECTION_SIZE`); NaN where no face was found.
    """
    vectors = np.full((len(images), stage.identity_dim), np.nan, np.float32)
    detections = np.full((len(images), DETECTION_SIZE), np.nan, np.float32)
    for row, result in enumerate(stage.embed_images(images)):
        if isinstance(result, FaceResult):
            vectors[row], detections[row] = result.embedding, result.detection
    return vectors, detections


def face_square(
    image: NDArray[np.uint8], box: NDArray[np.float32], margin: float, outside: Literal["constant", "edge"]
) -> NDArray[np.uint8]:
    """The square around a face.

    Args:
        image: uint8 [H, W, 3].
        box: x, y, width, height of the face in its pixels.
        margin: Side of the square, in sides of the box.
        outside: What stands where the picture ends: black, or its edge repeated.

    Returns:
        uint8 [S, S, 3]; the picture itself if it is a square that the face fills (`FILLED`).
    """
    height, width = image.shape[:2]
    side = round(margin * float(max(box[2], box[3])))
    if height == width and side >= height * FILLED:
        return image
    left, top = round(float(box[0] + box[2] / 2) - side / 2), round(float(box[1] + box[3] / 2) - side / 2)
    before_x, before_y = max(-left, 0), max(-top, 0)
    after_x, after_y = max(left + side - width, 0), max(top + side - height, 0)
    padded = np.pad(image, ((before_y, after_y), (before_x, after_x), (0, 0)), mode=outside)
    square: NDArray[np.uint8] = padded[top + before_y : top + before_y + side, left + before_x : left + before_x + side]
    return square
