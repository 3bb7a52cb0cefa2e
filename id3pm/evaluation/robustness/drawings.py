"""Drawings and a rendering of a face, made from five landmarks and three colours; no photograph goes in.

The paper shows drawings and digital renders (supplement, Fig. 12). Those in `robustness/style.py` are filters of the
portrait, so most of the face is still in them. Here a face is drawn without the portrait, from the
positions of its features and the colours of skin, lips and hair, so it has little information about the person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from id3pm.evaluation.robustness.outlines import smooth
from id3pm.evaluation.robustness.portrait import SIZE, Floats, Pixels, Portrait

FINE = 4  # drawn at so many times the size, then reduced
HEAD = (
    (0, -1.25),
    (0.5, -1.15),
    (0.86, -0.8),
    (1.0, -0.2),
    (0.99, 0.4),
    (0.9, 1.0),
    (0.66, 1.5),
    (0.33, 1.86),
    (0, 1.95),
)
HAIR = (
    (0, -1.5),
    (0.62, -1.42),
    (1.08, -0.95),
    (1.2, -0.2),
    (1.12, 0.35),
    (1.0, 0.1),
    (0.9, -0.45),
    (0.5, -0.8),
    (0, -0.85),
)
EYE = ((-0.23, 0.02), (-0.1, -0.1), (0.08, -0.11), (0.23, 0.0), (0.09, 0.09), (-0.08, 0.1))
BROW = ((-0.29, 0.05), (-0.1, -0.06), (0.12, -0.06), (0.3, 0.06))
"""Right halves of outlines, an eye and a brow, in face coordinates; the left halves are their mirror images."""
FRINGE = ((0.7, -0.75), (0, -0.88), (-0.7, -0.75))
"""The hairline, from the right."""
Colour = tuple[int, int, int]
Draw = Callable[[Portrait], Pixels]


class _Paper:
    """A sheet to draw on in face coordinates."""

    def __init__(self, portrait: Portrait, colour: Colour) -> None:
        self._portrait = portrait
        self._image = Image.new("RGB", (SIZE * FINE, SIZE * FINE), colour)
        self._pen = ImageDraw.Draw(self._image)

    def shape(self, points: ArrayLike, fill: Colour | None, ink: Colour | None = None, width: float = 0.03) -> None:
        """A closed smooth shape through these points, [K, 2]."""
        outline = self._pixels(smooth(points))
        if fill is not None:
            self._pen.polygon(outline, fill)
        if ink is not None:
            self._pen.line([*outline, *outline[:2]], ink, self._width(width), joint="curve")

    def line(self, points: ArrayLike, ink: Colour, width: float = 0.03) -> None:
        """A smooth line along these points, [K, 2]."""
        self._pen.line(self._pixels(smooth(points, closed=False)), ink, self._width(width), joint="curve")

    def done(self) -> Pixels:
        """What was drawn, uint8 [SIZE, SIZE, 3]."""
        return np.asarray(self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))

    def _pixels(self, points: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [(x * FINE, y * FINE) for x, y in self._portrait.pixels(points).tolist()]

    def _width(self, width: float) -> int:
        return max(round(width * self._portrait.unit * FINE), 1)


def _whole(half: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A symmetric outline from its right half, top to bottom."""
    return [*half, *((-u, v) for u, v in reversed(half[1:-1]))]


def _round(center: ArrayLike, radius: float, squeeze: float = 1.0) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    # Cutting corners draws a circle smaller than its polygon's corners, by this factor.
    circle: NDArray[np.float64] = np.stack([np.cos(angle), squeeze * np.sin(angle)], axis=-1)
    moved: NDArray[np.float64] = np.asarray(center) + 1.07 * radius * circle
    return moved


def _colour(portrait: Portrait, *points: tuple[float, float]) -> Colour:
    """Median of small squares around these points in face coordinates."""
    x, y = portrait.pixels(points).T
    reach = max(round(0.12 * portrait.unit), 1)
    near = np.arange(-reach, reach + 1)
    rows = np.clip(np.rint(y)[:, None, None] + near[:, None], 0, SIZE - 1).astype(int)
    columns = np.clip(np.rint(x)[:, None, None] + near, 0, SIZE - 1).astype(int)
    red, green, blue = np.median(portrait.image[rows, columns].reshape(-1, 3), axis=0).astype(int).tolist()
    return red, green, blue


def _features(portrait: Portrait) -> NDArray[np.float64]:
    return portrait.face(portrait.landmarks)


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(value * share) for value in colour)
    return red, green, blue


def line_drawing(portrait: Portrait) -> Pixels:
    """A face in black lines on white paper."""
    black, white = (25, 25, 30), (252, 252, 250)
    left_eye, right_eye, nose, left, right = _features(portrait)
    paper = _Paper(portrait, white)
    paper.shape(_whole(HAIR), (205, 205, 205), black, 0.04)
    paper.shape(_whole(HEAD), white, black, 0.05)
    paper.shape([(-1.06, -0.2), (-0.88, -1.0), (0, -1.36), (0.88, -1.0), (1.06, -0.2), *FRINGE], (205, 205, 205))
    paper.line([(1.0, -0.2), *FRINGE, (-1.0, -0.2)], black, 0.04)
    for eye in (left_eye, right_eye):
        paper.shape(eye + np.array(EYE), white, black, 0.035)
        paper.shape(_round(eye, 0.09), black)
        paper.line(eye + np.array(BROW) - (0, 0.3), black, 0.07)
    paper.line([nose + (-0.12, -0.45), nose + (-0.14, -0.15), nose + (-0.2, 0.02), nose + (-0.08, 0.1)], black, 0.03)
    paper.line([nose + (-0.08, 0.1), nose + (0, 0.13), nose + (0.1, 0.1), nose + (0.2, 0.02)], black, 0.04)
    middle = (left + right) / 2
    paper.line([left, middle + (-0.1, 0.02), middle + (0, 0.04), middle + (0.1, 0.02), right], black, 0.045)
    paper.line([middle + (-0.2, 0.19), middle + (0, 0.24), middle + (0.2, 0.19)], black, 0.03)
    return paper.done()


def avatar(portrait: Portrait) -> Pixels:
    """A flat cartoon figure in the person's colours."""
    skin = _colour(portrait, (-0.6, 0.75), (0.6, 0.75), (0, -0.4))
    hair = _colour(portrait, (0, -1.3), (-0.4, -1.25), (0.4, -1.25))
    left_eye, right_eye, nose, left, right = _features(portrait)
    paper = _Paper(portrait, (166, 202, 220))
    paper.shape([(-2.4, 3.6), (-2.0, 2.5), (-0.6, 2.15), (0.6, 2.15), (2.0, 2.5), (2.4, 3.6)], (70, 92, 140))
    paper.shape([(-0.5, 1.2), (0.5, 1.2), (0.55, 2.4), (0, 2.7), (-0.55, 2.4)], _darker(skin, 0.82))
    paper.shape(_whole(HAIR), hair)
    for side in (-1, 1):
        paper.shape(_round((side * 1.0, 0.4), 0.2, 1.5), _darker(skin, 0.9))
    paper.shape(_whole(HEAD), skin)
    paper.shape([(-1.02, -0.2), (-0.85, -1.0), (0, -1.32), (0.85, -1.0), (1.02, -0.2), *FRINGE], hair)
    for eye in (left_eye, right_eye):
        paper.shape(eye + 1.15 * np.array(EYE), (250, 250, 250))
        paper.shape(_round(eye, 0.115), (62, 44, 34))
        paper.shape(_round(eye + (0.03, -0.03), 0.03), (255, 255, 255))
        paper.line(eye + 1.15 * np.array(EYE[:4]), (40, 28, 26), 0.04)
        paper.line(eye + np.array(BROW) - (0, 0.32), _darker(hair, 0.8), 0.09)
    paper.shape(
        [
            nose + (0, -0.5),
            nose + (0.13, -0.05),
            nose + (0.17, 0.08),
            nose + (0, 0.13),
            nose + (-0.17, 0.08),
            nose + (-0.13, -0.05),
        ],
        _darker(skin, 0.88),
    )
    middle = (left + right) / 2
    lips = (min(skin[0] + 10, 255), round(skin[1] * 0.62), round(skin[2] * 0.66))
    paper.shape(
        [left, middle + (-0.12, -0.08), middle + (0.12, -0.08), right, middle + (0.15, 0.15), middle + (-0.15, 0.15)],
        lips,
    )
    paper.line([left, middle + (0, 0.04), right], _darker(lips, 0.6), 0.03)
    return paper.done()


def _hill(points: Floats, center: Sequence[float] | Floats, width: float, height: float) -> Floats:
    across, along = (points[..., 0] - center[0]) / width, (points[..., 1] - center[1]) / height
    hill: Floats = np.exp(-0.5 * (across**2 + along**2))
    return hill


def _relief(portrait: Portrait) -> Floats:
    """Heights of a head above the plane of the ears, in face coordinates; [SIZE, SIZE]."""
    points = portrait.grid
    left_eye, right_eye, nose, left, right = _features(portrait)
    middle, width = (left + right) / 2, float(np.hypot(*(right - left)))
    jaw = 1 - 0.3 * np.clip((points[..., 1] - 0.6) / 1.4, 0, 1) ** 2
    height: Floats = 1.35 * np.sqrt(
        np.clip(1 - (points[..., 0] / (1.06 * jaw)) ** 2 - ((points[..., 1] - 0.33) / 1.66) ** 2, 0, None)
    )
    for eye in (left_eye, right_eye):
        height = height - 0.2 * _hill(points, eye, 0.24, 0.17) + 0.09 * _hill(points, eye, 0.13, 0.09)
        height = height + 0.09 * _hill(points, eye - (0, 0.3), 0.28, 0.1)
        height = height + 0.06 * _hill(points, eye + (0, 0.75), 0.3, 0.25)
    along = np.clip((points[..., 1] + 0.05) / max(nose[1] + 0.05, 0.1), 0, None)  # 0 between the eyes, 1 at the tip
    ridge = np.where(along < 1, along, np.exp(-(((along - 1) / 0.16) ** 2)))
    height = height + 0.42 * ridge * np.exp(-0.5 * ((points[..., 0] - nose[0] * np.clip(along, 0, 1)) / 0.12) ** 2)
    for side in (-0.16, 0.16):
        height = height + 0.14 * _hill(points, nose + (side, 0.03), 0.08, 0.08)
    height = height + 0.13 * _hill(points, middle - (0, 0.07), width * 0.33, 0.06)
    height = height + 0.15 * _hill(points, middle + (0, 0.1), width * 0.3, 0.07)
    height = height - 0.09 * _hill(points, middle + (0, 0.01), width * 0.45, 0.025)
    return height + 0.12 * _hill(points, middle + (0, 0.55), 0.25, 0.16)


def rendering(portrait: Portrait) -> Pixels:
    """A head as computer graphics draws it: a made-up relief with the person's proportions under a lamp."""
    points, height = portrait.grid, _relief(portrait)
    left_eye, right_eye, _, left, right = _features(portrait)
    middle = (left + right) / 2
    skin, hair = _colour(portrait, (-0.6, 0.75), (0.6, 0.75)), _colour(portrait, (0, -1.3), (-0.4, -1.25), (0.4, -1.25))
    colour = np.broadcast_to(np.array(skin, np.float64), (SIZE, SIZE, 3)).copy()

    def paint(where: Floats, paint_colour: Sequence[float]) -> None:
        weight = where.clip(0, 1)[..., None]
        colour[:] = colour * (1 - weight) + np.array(paint_colour) * weight

    paint(0.8 * _hill(points, middle + (0, 0.02), 0.27, 0.09) ** 0.7, (skin[0] * 0.85, skin[1] * 0.5, skin[2] * 0.52))
    for eye in (left_eye, right_eye):
        paint(2.5 * _hill(points, eye - (0, 0.31), 0.2, 0.045) - 0.6, _darker(hair, 0.7))
        paint(6 * (_hill(points, eye, 0.15, 0.07) - 0.35), (235, 232, 228))
        paint(9 * (_hill(points, eye, 0.065, 0.07) - 0.35), (52, 38, 30))
    hairline = -0.78 + 0.75 * np.clip(np.abs(points[..., 0]) - 0.55, 0, None) ** 2
    paint((hairline - points[..., 1]) / 0.06, hair)

    slope_y, slope_x = np.gradient(height, 1 / portrait.unit)
    normals = np.stack([-slope_x, -slope_y, np.ones_like(height)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    lamp = np.array([-0.35, -0.45, 0.82])
    light = 0.35 + 0.8 * (normals @ (lamp / np.linalg.norm(lamp))).clip(0, None)
    shine = 45 * (normals @ np.array([-0.19, -0.24, 0.95])).clip(0, None) ** 40
    lit = colour * light[..., None] + shine[..., None]
    behind = np.array([92.0, 104.0, 118.0]) * (1.15 - 0.3 * np.linspace(0, 1, SIZE))[:, None, None]
    inside = (height / 0.08).clip(0, 1)[..., None]
    return np.asarray(np.rint((lit * inside + behind * (1 - inside)).clip(0, 255)), np.uint8)
