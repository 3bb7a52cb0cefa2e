"""Lighting: amount, direction and colour, computed in linear light."""

from __future__ import annotations

import numpy as np

from id3pm.evaluation.robustness.portrait import Floats, Pixels, Portrait

GAMMA = 2.2


def _linear(image: Pixels) -> Floats:
    linear: Floats = (image / 255.0) ** GAMMA
    return linear


def _picture(linear: Floats) -> Pixels:
    return np.asarray(np.rint(linear.clip(0, 1) ** (1 / GAMMA) * 255), np.uint8)


def exposed(portrait: Portrait, stops: float) -> Pixels:
    """More (or less) light by this many stops, each a factor of 2; what becomes too bright is clipped to white."""
    return _picture(_linear(portrait.image) * 2.0**stops)


def low_contrast(portrait: Portrait, keep: float = 0.3) -> Pixels:
    """Haze: this share of the contrast around mid-grey is left."""
    return np.asarray(np.rint(128 + (portrait.image - 128.0) * keep), np.uint8)


def side_light(portrait: Portrait, direction: float, darkest: float = 0.04) -> Pixels:
    """One lamp beside the face: full light on one side, a few per cent on the other.

    Args:
        portrait: The face.
        direction: -1 for a lamp on the left of the picture, 1 for one on the right.
        darkest: Share of the light that reaches the far side.
    """
    u = portrait.grid[..., :1] * direction
    return _picture(_linear(portrait.image) * (darkest + 1.5 / (1 + np.exp(-4.0 * u))))


def tinted(portrait: Portrait, gains: tuple[float, float, float]) -> Pixels:
    """A lamp whose red, green and blue differ by these factors."""
    return _picture(_linear(portrait.image) * np.array(gains))


def night(portrait: Portrait) -> Pixels:
    """Four stops too dark, bluish, amplified again by a camera whose sensor adds noise and counts coarsely."""
    generator = np.random.Generator(np.random.Philox(1))
    light = _linear(portrait.image) * np.array([0.8, 0.95, 1.25]) * 2.0**-4
    light = light + generator.normal(0, 0.006, light.shape)
    return _picture(np.rint(light.clip(0, 1) * 255) / 255 * 2.0**2.5)
