"""Pose and expression by warping: approximations that need no second photograph.

A pose is the rotation of a relief over the picture, a smooth head with a nose on it, seen from straight ahead. Parts
that turn into view are missing in the picture, and parts that turn out of view are squeezed instead of hidden, so
rotations stay within 30 degrees. An expression moves mouth and brows. Real poses need photographs of the same person.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.robustness.portrait import SIZE, Floats, Pixels, Portrait

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Displacement field: face coordinates [..., 2] -> displacement in face coordinates [..., 2]."""

ROUNDS = 20  # of the inversion; each leaves at most 9/10 of the error, most of them far less
HEAD, HEAD_WIDTH, HEAD_HEIGHT, HEAD_MIDDLE = 1.1, 0.85, 1.25, 0.45
NOSE, NOSE_WIDTH, NOSE_HEIGHT = 0.36, 0.17, 0.26
AXIS_DEPTH = 0.5
"""The relief, in distances between the eyes: heights above the plane of the ears, standard deviations, and the depth
of the axis of rotation. The steepest slope is 1.7, so a turn of 30 degrees folds nothing over."""


def moved(portrait: Portrait, field: Field) -> Pixels:
    """The portrait with everything moved by a smooth field whose derivative is below 1."""
    target = portrait.grid
    source = target
    for _ in range(ROUNDS):  # source + field(source) = target, by fixed-point iteration
        source = target - field(source)
    return portrait.sample(source)


def _bump(points: Floats, center: tuple[float, float], width: float, height: float | None = None) -> Floats:
    """A Gaussian hill of height 1 with these standard deviations."""
    across, along = points[..., 0] - center[0], points[..., 1] - center[1]
    hill: Floats = np.exp(-0.5 * ((across / width) ** 2 + (along / (height or width)) ** 2))
    return hill


def turned(portrait: Portrait, yaw: float = 0.0, pitch: float = 0.0) -> Pixels:
    """The head turned about its own axes.

    Args:
        portrait: The face.
        yaw: Degrees; positive turns the nose to the right of the picture. At most 30 either way.
        pitch: Degrees; positive lowers the chin.
    """
    nose_u, nose_v = portrait.face(portrait.landmarks[2:3])[0].tolist()
    sin, cos = np.sin(np.radians([yaw, pitch])), np.cos(np.radians([yaw, pitch]))

    def field(points: NDArray[np.float64]) -> NDArray[np.float64]:
        depth = HEAD * _bump(points, (0, HEAD_MIDDLE), HEAD_WIDTH, HEAD_HEIGHT)
        depth = depth + NOSE * _bump(points, (nose_u, nose_v - 0.08), NOSE_WIDTH, NOSE_HEIGHT)
        shift = (points - (0, HEAD_MIDDLE)) * (cos - 1) + (depth - AXIS_DEPTH)[..., None] * sin
        # What is far from the head belongs to the background and stays.
        radius = np.hypot(points[..., 0] / 1.5, (points[..., 1] - HEAD_MIDDLE) / 2.0)
        weight = 1 / (1 + np.exp(7 * (radius - 1.25)))
        total: NDArray[np.float64] = shift * weight[..., None]
        return total

    return moved(portrait, field)


def tilted(portrait: Portrait, degrees: float) -> Pixels:
    """The whole picture rotated about the face, clockwise; edges are mirrored."""
    center = portrait.pixels([(0, 0.5)])[0]
    matrix = cv2.getRotationMatrix2D((float(center[0]), float(center[1])), -degrees, 1.0)
    rotated: Pixels = cv2.warpAffine(
        portrait.image, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return rotated


def _hills(hills: list[tuple[tuple[float, float], float, tuple[float, float]]]) -> Field:
    """The field in which each (center, standard deviation, shift) moves its surroundings."""

    def field(points: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros_like(points)
        for center, width, shift in hills:
            total += _bump(points, center, width)[..., None] * np.array(shift)
        return total

    return field


def _corners(portrait: Portrait) -> tuple[tuple[float, float], tuple[float, float]]:
    left, right = portrait.face(portrait.landmarks[3:5]).tolist()
    return (left[0], left[1]), (right[0], right[1])


def smile(portrait: Portrait) -> Pixels:
    """Corners of the mouth outwards and up, cheeks up."""
    left, right = _corners(portrait)
    middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2 + 0.05)
    cheeks: list[tuple[tuple[float, float], float, tuple[float, float]]] = [
        ((side * 0.62, 0.72), 0.28, (side * 0.02, -0.06)) for side in (-1, 1)
    ]
    return moved(
        portrait, _hills([(left, 0.24, (-0.1, -0.16)), (right, 0.24, (0.1, -0.16)), (middle, 0.18, (0, 0.06)), *cheeks])
    )


def frown(portrait: Portrait) -> Pixels:
    """Corners of the mouth down and inwards, inner ends of the brows down."""
    left, right = _corners(portrait)
    brows: list[tuple[tuple[float, float], float, tuple[float, float]]] = [
        ((side * 0.28, -0.3), 0.2, (-side * 0.04, 0.1)) for side in (-1, 1)
    ]
    return moved(portrait, _hills([(left, 0.24, (0.05, 0.16)), (right, 0.24, (-0.05, 0.16)), *brows]))


def raised_brows(portrait: Portrait) -> Pixels:
    """Both brows up, upper lids with them."""
    return moved(portrait, _hills([((side * 0.5, -0.32), 0.26, (0, -0.16)) for side in (-1, 1)]))


def open_mouth(portrait: Portrait, gap: float = 0.34) -> Pixels:
    """The jaw lowered by this much, dark between the lips."""
    left, right = _corners(portrait)
    middle, line, end = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2 + 0.02, 2.7
    u, v = portrait.grid[..., 0], portrait.grid[..., 1]
    opened = gap * np.exp(-0.5 * ((u - middle) / 0.3) ** 2)  # height of the gap at this u; the chin moves with it
    below = v > line
    source = portrait.grid.copy()
    # Below the gap the face is pushed down: most at the lip, not at all at `end`.
    source[..., 1] = np.where(below, line + (v - line - opened).clip(0) * (end - line) / (end - line - opened), v)
    source[..., 1] = np.where(v > end, v, source[..., 1])
    picture = portrait.sample(source).astype(np.float64)
    lips = 0.05  # units from lip to full darkness
    inside = ((v - line) / lips).clip(0, 1) * ((line + opened - v) / lips).clip(0, 1) * (opened > 0.06)
    inside = inside * (((right[0] - left[0]) * 0.46 - np.abs(u - middle)) / 0.08).clip(0, 1)
    dark = picture * (1 - inside[..., None]) + np.array([52, 18, 20]) * inside[..., None]
    return np.asarray(np.rint(dark.clip(0, 255)), np.uint8)
