"""Pictures as they lie when the camera, or the head, was tilted."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def tilted(image: npt.NDArray[np.uint8], degrees: int) -> npt.NDArray[np.uint8]:
    """The whole picture [H, W, 3] turned counter-clockwise; exact for quarters, and on black otherwise."""
    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(image, degrees // 90))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    cosine, sine = np.abs(matrix[0, :2])
    size = (round(height * sine + width * cosine), round(height * cosine + width * sine))
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    return np.asarray(cv2.warpAffine(image, matrix, size), np.uint8)
