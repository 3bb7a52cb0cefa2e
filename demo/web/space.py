"""Moving about in the space of ID vectors: between two people, and along principal axes.

The arithmetic is `id3pm_client.latent`'s where the client has it; the axes need a PCA file of the served bundle.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from web.kindness import PageError
from web.people import Vector

SHOWN_AXES = 5
"""The first axes say most about a face; more sliders than these would only confuse."""


class Axes(Protocol):
    """Principal axes of a bundle's ID vectors: what the page uses of `id3pm_client.latent.Pca`."""

    def walk(self, vector: Vector, axis: int, amount: float) -> Vector:
        """The vector moved along an axis by `amount` of its L2 norm."""


def slerp(a: Vector, b: Vector, t: float) -> Vector:
    """The vector between `a` (t = 0) and `b` (t = 1) along the arc; lengths are interpolated linearly.

    Opposite vectors have no one arc between them; they are refused, unless t is 0 or 1.

    Raises:
        ValueError: `t` is outside 0 .. 1, or there is no arc.
    """
    if not 0.0 <= t <= 1.0:
        raise ValueError(f"t={t}: must be between 0 and 1")
    if t in (0.0, 1.0):
        return (a, b)[int(t)]
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(length_a, length_b) == 0.0:
        raise ValueError("an ID vector of zeros has no direction")
    x, y = a.astype(np.float64) / length_a, b.astype(np.float64) / length_b
    angle = float(np.arctan2(np.linalg.norm(x - y), np.linalg.norm(x + y))) * 2.0
    if np.pi - angle < 1e-6:
        raise ValueError("the two ID vectors are opposite: there is no one way between them")
    if angle < 1e-6:
        direction = (1.0 - t) * x + t * y
    else:
        direction = (np.sin((1.0 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle)
    blended: Vector = (direction * ((1.0 - t) * length_a + t * length_b)).astype(np.float32)
    return blended


def blend(a: Vector, b: Vector, t: float) -> Vector:
    """`slerp` by the client's own function where it has one.

    Raises:
        PageError: There is no way between the two.
    """
    if a.shape != b.shape:
        raise PageError("These two people do not fit together.", "Please choose both of them again.")
    latent = _latent()
    try:
        return np.asarray((slerp if latent is None else latent.slerp)(a, b, t), dtype=np.float32)
    except ValueError as error:
        raise PageError("There is no way between these two people.", f"Please choose another one. ({error})") from error


def load_axes(path: Path) -> Axes | None:
    """The axes in a PCA file; `None` where there is no such file, or the client cannot read any.

    Raises:
        ValueError: The file is damaged.
    """
    latent = _latent()
    if latent is None or not path.is_file():
        return None
    axes: Axes = latent.Pca.load(path)
    return axes


def walk(axes: Axes | None, vector: Vector, amounts: Sequence[float]) -> Vector:
    """The vector moved along the first axes.

    Args:
        axes: Where there are any.
        vector: ID vector `[D]`.
        amounts: One per axis, in units of the vector's L2 norm.
    """
    for axis, amount in enumerate(amounts):
        if axes is not None and amount:
            vector = np.asarray(axes.walk(vector, axis, float(amount)), dtype=np.float32)
    return vector


def _latent() -> Any:
    """`id3pm_client.latent`, or `None` where this client does not have it."""
    if importlib.util.find_spec("id3pm_client.latent") is None:
        return None
    return importlib.import_module("id3pm_client.latent")
