"""Maths of ID vectors: interpolation, means, moves along axes and directions.

Every function takes any vectors that are not zero and scales them to L2 norm 1 first. The sums are float64, the results
unit vectors in float32.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]
Vectors: TypeAlias = NDArray[np.float32]
SMALLEST_NORM = 1e-6
"""L2 norm below which a vector has no direction to speak of: ID vectors are unit vectors in float32."""
ANTIPODAL = 1e-4
"""Radians: two vectors that are this close to opposite have no shortest path between them that float32 can tell."""
TINY_ANGLE = 1e-6
"""Radians below which the sines of slerp divide zero by zero, and the straight line is the same to 1e-12."""
DEPENDENT = 1e-3
"""Share of a direction that must be left when others are taken out: below it, float32 files hold only noise."""


def slerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> Vectors:
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
    first, second, share = _pair(a, b, t)
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
    return finished(from_a * first + from_b * second)


def lerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> Vectors:
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
    first, second, share = _pair(a, b, t)
    problem = "the line from a to b passes through zero at t: they point in opposite directions"
    return finished((1.0 - share) * first + share * second, problem)


def mean_vector(vectors: ArrayLike) -> Vectors:
    """The direction of the mean of unit vectors; every photograph has the same weight.

    Args:
        vectors: ID vectors [N, D] of one person.

    Returns:
        A unit vector, float32 [D].

    Raises:
        InvalidInputError: Not [N, D] with N of at least 1, a vector is zero or not finite, or their mean is zero.
    """
    rows = unit(vectors, name="vectors")
    if rows.ndim != 2 or not len(rows):
        raise InvalidInputError(f"vectors have shape {list(rows.shape)}: need [N, D], the ID vectors of N photographs")
    return finished(rows.mean(axis=0), "the mean of the vectors is zero: they are not of one person")


def moved(vector: ArrayLike, direction: Floats, amount: ArrayLike, name: str) -> Vectors:
    """Vectors moved along a direction.

    Args:
        vector: ID vectors [..., D].
        direction: [D].
        amount: How far, in lengths of `direction`. Its axes broadcast with the leading ones of the vectors.
        name: Of the amount, for messages.

    Raises:
        InvalidInputError: A vector is of another length, zero or not finite; or the result is zero.
    """
    return finished(unit(vector, direction.size) + real(amount, name)[..., np.newaxis] * direction)


def walked(vector: ArrayLike, axes: Floats, axis: int, amount: ArrayLike) -> Vectors:
    """Vectors moved along one of the axes [K, D]; see `moved`.

    Raises:
        InvalidInputError: As `moved`; or there is no such axis.
    """
    if not 0 <= axis < len(axes):
        raise InvalidInputError(f"axis={axis}: must be from 0 to {len(axes) - 1}")
    return moved(vector, axes[axis], amount, "amount")


def coordinates(vector: ArrayLike, mean: Floats, axes: Floats) -> Floats:
    """Where vectors [..., D] lie along the axes [K, D], from the mean [D]: float64 [..., K].

    Raises:
        InvalidInputError: A vector is of another length, zero or not finite.
    """
    return np.asarray((unit(vector, mean.size) - mean) @ axes.T)


def projected(vector: ArrayLike, mean: Floats, axes: Floats, k: int) -> Vectors:
    """Vectors [..., D] without all but the first k of the axes [K, D]: along the others they are the mean [D].

    Raises:
        InvalidInputError: k is out of range; a vector is of another length, zero or not finite; the result is zero.
    """
    if not 0 <= k <= len(axes):
        raise InvalidInputError(f"k={k}: must be from 0 to {len(axes)}")
    kept = axes[:k]
    return finished(mean + coordinates(vector, mean, kept) @ kept)


def orthogonal(vector: Floats, others: Floats, problem: str) -> Floats:
    """A direction [D] without what it shares with others [N, D], as a unit vector, float64.

    Raises:
        InvalidInputError: Nothing is left; the message is `problem`.
    """
    _, singular, rows = np.linalg.svd(others, full_matrices=False)
    basis = rows[singular > SMALLEST_NORM]
    for _ in range(2):  # twice is enough: once leaves rounding errors of nearly dependent vectors
        vector = vector - (vector @ basis.T) @ basis
    length = float(np.linalg.norm(vector))
    if length < DEPENDENT:
        raise InvalidInputError(problem)
    return np.asarray(vector / length)


def unit(vectors: ArrayLike, dim: int | None = None, name: str = "vector") -> Floats:
    """Vectors [..., D] scaled to L2 norm 1, float64.

    Args:
        vectors: Finite numbers.
        dim: The D that is needed, or `None` for any.
        name: For messages.

    Raises:
        InvalidInputError: Not numbers, not finite, of another length, or zero.
    """
    array = real(vectors, name)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InvalidInputError(f"{name} has shape {list(array.shape)}: need [D] or [..., D]")
    if dim is not None and array.shape[-1] != dim:
        raise InvalidInputError(f"{name} has {array.shape[-1]} numbers: need {dim}")
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if np.any(norms < SMALLEST_NORM):
        raise InvalidInputError(f"{name} is zero, which has no direction: give an ID vector")
    return np.asarray(array / norms)


def real(values: ArrayLike, name: str) -> Floats:
    """Numbers as float64.

    Raises:
        InvalidInputError: Not numbers, or not finite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{name}: expected numbers") from error
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name} is not finite")
    return array


def finished(
    vectors: Floats, problem: str = "the resulting vector is zero: choose other amounts or vectors"
) -> Vectors:
    """Results [..., D] scaled to L2 norm 1, float32.

    Raises:
        InvalidInputError: One is zero; the message is `problem`.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if np.any(norms < SMALLEST_NORM):
        raise InvalidInputError(problem)
    return np.asarray(vectors / norms, dtype=np.float32)


def _pair(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Two unit vectors [..., D] and shares [..., 1], checked."""
    first, second = unit(a, name="a"), unit(b, name="b")
    if first.shape[-1] != second.shape[-1]:
        raise InvalidInputError(f"a has {first.shape[-1]} numbers and b {second.shape[-1]}: need the same FR model's")
    return first, second, real(t, "t")[..., np.newaxis]
