"""Occlusion: objects that hide parts of a face, placed by its landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.robustness.outlines import smooth
from id3pm.evaluation.robustness.portrait import Floats, Pixels, Portrait

Colour = tuple[int, int, int]
_SHIFT = 6  # OpenCV draws at 64ths of a pixel


def _mask(portrait: Portrait, polygons: Sequence[NDArray[np.float64]], soft: float = 0.0) -> Floats:
    """Cover [SIZE, SIZE, 1], 0..1, of polygons [K, 2] in face coordinates; `soft` blurs its edge, in units."""
    drawn = np.zeros(portrait.image.shape[:2], np.uint8)
    for polygon in polygons:
        corners = np.rint(portrait.pixels(polygon) * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(drawn, [corners], 255, cv2.LINE_AA, _SHIFT)
    cover = drawn.astype(np.float32) / 255
    if soft:
        cover = cv2.GaussianBlur(cover, (0, 0), soft * portrait.unit)
    return cover[..., None]


def _over(image: Floats | Pixels, cover: Floats, colour: Floats | Colour) -> Pixels:
    return np.asarray(np.rint(image * (1 - cover) + np.asarray(colour) * cover), np.uint8)


def _mirrored(half: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The right half of an outline, from its top to its bottom, completed by its mirror image."""
    return [*half, *((-u, v) for u, v in reversed(half))]


def sunglasses(portrait: Portrait) -> Pixels:
    """Dark lenses over the eyes that were found, a bridge, and temples to the sides of the head."""
    eyes = portrait.face(portrait.landmarks[:2])
    lens = np.array([(-0.44, -0.26), (0.44, -0.26), (0.46, 0.05), (0.26, 0.32), (-0.2, 0.34), (-0.44, 0.12)])
    lenses = [smooth(lens * (side, 1) + eye, rounds=3) for side, eye in zip((-1, 1), eyes, strict=True)]
    top = float(eyes[:, 1].mean()) - 0.17
    bar = np.array([(-1.2, top - 0.05), (1.2, top - 0.05), (1.2, top + 0.05), (-1.2, top + 0.05)])
    image = _over(portrait.image, _mask(portrait, [bar]), (28, 24, 22))
    return _over(image, _mask(portrait, lenses), (14, 14, 18))


def mask(portrait: Portrait) -> Pixels:
    """A surgical mask over nose, mouth and chin, with pleats and straps."""
    nose = float(portrait.face(portrait.landmarks[2:3])[0, 1])
    half = [(0.12, nose - 0.25), (0.55, nose - 0.1), (1.02, nose + 0.05), (0.98, 1.35), (0.62, 1.85), (0.2, 2.02)]
    cloth = _mask(portrait, [smooth(_mirrored(half))])
    shade = 0.95 + 0.05 * np.cos(portrait.grid[..., 1:] * 2 * np.pi / 0.33)
    straps = [
        np.array([(side * 0.95, v), (side * 1.5, v - 0.35), (side * 1.5, v - 0.3), (side * 0.95, v + 0.05)])
        for side in (-1, 1)
        for v in (nose + 0.1, 1.3)
    ]
    image = _over(portrait.image, _mask(portrait, straps), (225, 230, 232))
    return _over(image, cloth, shade * np.array([150, 190, 208]))


def hat(portrait: Portrait) -> Pixels:
    """A knitted hat over hair and forehead, down to just above the brows."""
    dome = [(0.2, -2.3), (0.9, -2.1), (1.35, -1.5), (1.42, -0.9), (1.4, -0.52), (0.5, -0.6), (0.05, -0.6)]
    rim = [(0.05, -1.05), (0.6, -1.03), (1.45, -0.95), (1.46, -0.48), (0.6, -0.58), (0.05, -0.6)]
    ribs = 0.86 + 0.14 * np.cos(portrait.grid[..., :1] * 2 * np.pi / 0.14)
    image = _over(portrait.image, _mask(portrait, [smooth(_mirrored(dome), rounds=2)]), ribs * np.array([120, 40, 44]))
    return _over(image, _mask(portrait, [smooth(_mirrored(rim), rounds=2)]), ribs * np.array([92, 28, 32]))


def headband(portrait: Portrait) -> Pixels:
    """A dark band over the forehead, from brows to hairline."""
    band = np.array([(-1.4, -0.95), (0, -1.08), (1.4, -0.95), (1.4, -0.4), (0, -0.48), (-1.4, -0.4)])
    return _over(portrait.image, _mask(portrait, [band]), (36, 40, 70))


def hand(portrait: Portrait) -> Pixels:
    """Something as large as a hand before one cheek and half of the mouth, in the face's own mean colour."""
    block = smooth([(-1.2, 0.3), (-0.2, 0.3), (-0.2, 1.7), (-1.2, 1.7)], rounds=3)
    middle = np.abs(portrait.grid - (0, 0.6)).max(axis=-1) < 0.6
    colour = portrait.image[middle].mean(axis=0) * 0.85
    image = _over(portrait.image, _mask(portrait, [block + (0.04, 0.06)], soft=0.06) * 0.5, (20, 16, 14))
    return _over(image, _mask(portrait, [block]), colour)


def half_face(portrait: Portrait) -> Pixels:
    """Black from the middle of the face to the left edge of the picture, as if a person stood before it."""
    return _over(portrait.image, _mask(portrait, [np.array([(-9, -9), (0.0, -9), (0.0, 9), (-9, 9)])]), (0, 0, 0))
