"""Noise and compression of a picture.

Lengths are in distances between the eyes, so that every face loses the same detail.
"""

from __future__ import annotations

import cv2
import numpy as np

from id3pm.evaluation.robustness.portrait import SIZE, Pixels, Portrait


def grain(portrait: Portrait, deviation: float = 45.0) -> Pixels:
    """Gaussian noise of this standard deviation in grey levels, the same for all portraits."""
    noise = np.random.Generator(np.random.Philox(2)).normal(0, deviation, portrait.image.shape)
    return np.asarray(np.rint((portrait.image + noise).clip(0, 255)), np.uint8)


def dead_pixels(portrait: Portrait, share: float = 0.1) -> Pixels:
    """Salt and pepper: this share of the pixels is black or white."""
    chance = np.random.Generator(np.random.Philox(3)).random((SIZE, SIZE))
    image = portrait.image.copy()
    image[chance < share / 2] = 0
    image[chance > 1 - share / 2] = 255
    return image


def jpeg(portrait: Portrait, quality: int = 4) -> Pixels:
    """Compressed until blocks show."""
    _, data = cv2.imencode(".jpg", portrait.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Pixels = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return decoded


def blur(portrait: Portrait, deviation: float = 0.09) -> Pixels:
    """Out of focus: a Gaussian of this standard deviation."""
    blurred: Pixels = cv2.GaussianBlur(portrait.image, (0, 0), deviation * portrait.unit)
    return blurred


def motion_blur(portrait: Portrait, length: float = 0.35) -> Pixels:
    """The camera moved sideways by this much."""
    pixels = max(round(length * portrait.unit), 1)
    kernel = np.full((1, pixels), 1 / pixels, np.float32)
    blurred: Pixels = cv2.filter2D(portrait.image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return blurred


def low_resolution(portrait: Portrait, apart: float = 6.0) -> Pixels:
    """Taken from so far away that the eyes are only this many pixels apart."""
    size = max(round(SIZE * apart / portrait.unit), 1)
    small = cv2.resize(portrait.image, (size, size), interpolation=cv2.INTER_AREA)
    large: Pixels = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return large
