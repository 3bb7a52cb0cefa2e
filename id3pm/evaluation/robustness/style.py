"""Stylised pictures: drawings, paintings and other renderings of a portrait."""

from __future__ import annotations

import cv2
import numpy as np

from id3pm.evaluation.robustness.portrait import SIZE, Floats, Pixels, Portrait


def _grey(image: Pixels) -> Floats:
    grey: Floats = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return grey


def _coloured(grey: Floats) -> Pixels:
    return np.repeat(np.asarray(np.rint(grey.clip(0, 255)), np.uint8)[..., None], 3, axis=-1)


def greyscale(portrait: Portrait) -> Pixels:
    """Black and white."""
    return _coloured(_grey(portrait.image))


def inverted(portrait: Portrait) -> Pixels:
    """A negative."""
    return np.bitwise_not(portrait.image)


def pencil(portrait: Portrait, softness: float = 7.0) -> Pixels:
    """Pencil on white paper: the grey picture divided by itself out of focus ("colour dodge")."""
    grey = _grey(portrait.image) + 1
    return _coloured(grey / cv2.GaussianBlur(grey, (0, 0), softness) * 250)


def ink(portrait: Portrait, width: float = 2.2) -> Pixels:
    """Lines of ink: extended difference of Gaussians (Winnemöller et al., 2012)."""
    grey = _grey(portrait.image) / 255
    sharp, soft = cv2.GaussianBlur(grey, (0, 0), width), cv2.GaussianBlur(grey, (0, 0), 1.6 * width)
    difference = 20 * sharp - 19 * soft
    lines: Floats = 1 + np.tanh(12 * np.minimum(difference - 0.55, 0))
    return _coloured(255 * lines)


def posterised(portrait: Portrait, levels: int = 4) -> Pixels:
    """This many levels of each primary colour."""
    steps = np.floor(portrait.image / 256.0 * levels) / (levels - 1)
    return np.asarray(np.rint(steps * 255), np.uint8)


def mosaic(portrait: Portrait, tiles: int = 28) -> Pixels:
    """So many square tiles a side, with hard edges."""
    small = cv2.resize(portrait.image, (tiles, tiles), interpolation=cv2.INTER_AREA)
    large: Pixels = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    return large


def oil(portrait: Portrait, radius: int = 7) -> Pixels:
    """Brush strokes: every pixel takes the mean of the calmest of four squares that touch it (Kuwahara, 1976)."""
    image = portrait.image.astype(np.float32)
    size = (radius + 1, radius + 1)
    means, spreads = [], []
    for anchor in ((0, 0), (radius, 0), (0, radius), (radius, radius)):
        mean = cv2.boxFilter(image, -1, size, anchor=anchor)
        square = cv2.boxFilter(image**2, -1, size, anchor=anchor)
        means.append(mean)
        spreads.append((square - mean**2).sum(axis=-1))
    calmest = np.argmin(spreads, axis=0)
    return np.asarray(np.rint(np.take_along_axis(np.stack(means), calmest[None, ..., None], axis=0)[0]), np.uint8)


def cartoon(portrait: Portrait) -> Pixels:
    """Flat colours inside dark outlines."""
    flat = portrait.image
    for _ in range(4):
        flat = cv2.bilateralFilter(flat, 9, 40, 7)
    flat = np.floor(flat / 32.0) * 32 + 16
    lines = ink(portrait, 1.4)[..., :1] / 255
    vivid = flat.mean(axis=-1, keepdims=True) * -0.35 + flat * 1.35
    return np.asarray(np.rint((vivid * lines).clip(0, 255)), np.uint8)


def heat(portrait: Portrait) -> Pixels:
    """False colours, as of a thermal camera."""
    coloured: Pixels = np.ascontiguousarray(
        cv2.applyColorMap(_grey(portrait.image).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    )
    return coloured
