"""Interpolation between two identities (paper, Figs. 5, 13 and supplement 5.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.errors import InvalidInputError
from id3pm.idspace.vectors import finished, real, unit

ANTIPODAL = 1e-4
"""Radians: two vectors that are this close to opposite have no shortest path between them that float32 can tell."""
TINY_ANGLE = 1e-6
"""Radians below which the sines of slerp divide zero by zero, and the straight line is the same to 1e-12."""


def slerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> NDArray[np.float32]:
    """Spherical linear interpolation: along the great circle, at constant speed (Shoemake 1985).

    Args:
        a: ID vectors [..., D], where t is 0.
        b: ID vectors [..., D], where t is 1.
        t: Share of the way; outside 0 .. 1 goes on along the circle. Its axes broadcast with the leading ones of a and
            b: one pair and T shares give [T, D].

    Returns:
        Unit vectors, float32 [..., D].

    Raises:
        InvalidInputError: A vector is zero or not finite, the lengths differ, or a and b are opposite to each other.
    """
    first, second, share = _checked(a, b, t)
    # Kahan's formula: exact for small angles and for large ones, unlike the arc cosine.
    angle = 2.0 * np.arctan2(
        np.linalg.norm(first - second, axis=-1, keepdims=True), np.linalg.norm(first + second, axis=-1, keepdims=True)
    )
    if np.any(angle > np.pi - ANTIPODAL):
        raise InvalidInputError("a and b point in opposite directions: no great circle between them is the shortest")
    near = angle < TINY_ANGLE
    sine = np.where(near, 1.0, np.sin(angle))
    from_a = np.where(near, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    from_b = np.where(near, share, np.sin(share * angle) / sine)
    return finished(from_a * first + from_b * second, "the interpolated vector is zero")


def lerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> NDArray[np.float32]:
    """Linear interpolation, brought back to L2 norm 1: the path of `slerp`, but faster in its middle.

    Args:
        a: See `slerp`.
        b: See `slerp`.
        t: See `slerp`.

    Returns:
        Unit vectors, float32 [..., D].

    Raises:
        InvalidInputError: A vector is zero or not finite, the lengths differ, or the line meets zero at t.
    """
    first, second, share = _checked(a, b, t)
    return finished(
        (1.0 - share) * first + share * second,
        "the line from a to b passes through zero at t: they point in opposite directions",
    )


def _checked(
    a: ArrayLike, b: ArrayLike, t: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    first, second = unit(a, name="a"), unit(b, name="b")
    if first.shape[-1] != second.shape[-1]:
        raise InvalidInputError(f"a has {first.shape[-1]} numbers and b {second.shape[-1]}: need the same FR model's")
    return first, second, real(t, "t")[..., np.newaxis]
