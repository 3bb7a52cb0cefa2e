"""Unit vectors of which any two are at least an angle apart, and how many of them there can be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.idspace.vectors import Vectors

CHUNK = 1024
STALLED = 50
"""Chunks in a row without a vector that fits, after which no more are drawn."""

Candidates = Callable[[int, int], Vectors]
"""Candidates number `start` to `start + count` - 1 (fewer at the end): unit vectors, float32 [n, D]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Packing:
    """Vectors that keep their distance.

    Attributes:
        numbers: int64 [N], which of the candidates they are.
        vectors: float32 [N, D].
        candidates: How many were looked at.
        closest_degrees: Angle of the closest pair; 180 for fewer than two.
    """

    numbers: NDArray[np.int64]
    vectors: Vectors
    candidates: int
    closest_degrees: float


def pack(draw: Candidates, count: int, least_degrees: float) -> Packing:
    """Takes candidates in order, each that is far enough from all those before it.

    Args:
        draw: Gives the candidates.
        count: How many are wanted.
        least_degrees: Smallest angle between any two; 0 takes all.

    Returns:
        `count` vectors, or fewer where the candidates end or none fits any more.
    """
    limit = math.cos(math.radians(least_degrees)) if least_degrees > 0 else math.inf
    kept = np.empty((0, draw(0, 1).shape[1]), np.float32)
    numbers: list[int] = []
    start, idle, closest = 0, 0, -1.0
    while len(numbers) < count and idle < STALLED:
        chunk = draw(start, CHUNK)
        if not len(chunk):
            break
        fitting, nearest = _fitting(kept[: len(numbers)], chunk, limit, count - len(numbers))
        closest = max([closest, *nearest])
        kept = np.concatenate([kept[: len(numbers)], chunk[fitting]])
        numbers += [start + number for number in fitting]
        start += len(chunk)
        idle = 0 if fitting else idle + 1
    angle = 180.0 if len(numbers) < 2 else math.degrees(math.acos(min(closest, 1.0)))
    return Packing(np.array(numbers, np.int64), kept[: len(numbers)], start, angle)


def _fitting(kept: Vectors, chunk: Vectors, limit: float, room: int) -> tuple[list[int], list[float]]:
    """Rows of the chunk that fit beside all others, and the largest cosine of each to those before it."""
    to_kept = np.full(len(chunk), -1.0)
    for block in range(0, len(kept), 65536):
        to_kept = np.maximum(to_kept, (chunk @ kept[block : block + 65536].T).max(axis=1, initial=-1.0))
    among = chunk @ chunk.T
    fitting: list[int] = []
    nearest: list[float] = []
    for row in range(len(chunk)):
        cosine = float(max(to_kept[row], among[row, fitting].max(initial=-1.0)))
        if cosine <= limit and len(fitting) < room:
            fitting.append(row)
            nearest.append(cosine)
    return fitting, nearest


def require_count(packing: Packing, count: int, least_degrees: float) -> None:
    """Raises `InvalidInputError` where fewer vectors were found than were asked for; it names the number found."""
    found = len(packing.vectors)
    if found < count:
        apart = f" that are at least {least_degrees:g} degrees apart" if least_degrees > 0 else ""
        raise InvalidInputError(
            f"identities={count}: {found}{apart} were found among {packing.candidates} candidates; ask for {found}"
            f"{', for a smaller angle' if apart else ''} or for another source"
        )


def sphere_bounds(dim: int, least_degrees: float) -> tuple[float, float]:
    """How many unit vectors of length `dim` can be at least an angle apart, from below and from above.

    Below: the caps of this radius around a packing to which no vector can be added cover the sphere (Shannon 1959).
    Above: the caps of half this radius do not overlap; from 90 degrees on, 2 D and Rankin's 1 - 1 / cos (1955).
    """
    if least_degrees <= 0:
        return math.inf, math.inf
    cosine = math.cos(math.radians(least_degrees))
    if least_degrees > 90:
        return 2.0, math.floor(1.0 - 1.0 / cosine + 1e-9)
    above = 2.0 * dim if least_degrees == 90 else 1.0 / _cap_share(dim, least_degrees / 2)
    return max(1.0 / _cap_share(dim, least_degrees), 2.0), above


def _cap_share(dim: int, degrees: float) -> float:
    """Share of the sphere's surface within an angle of one of its points: integral of sin^(D - 2)."""
    angles = np.linspace(0.0, np.pi, 200_001)[1:-1]
    weights = np.exp((dim - 2) * np.log(np.sin(angles)))
    inside = angles <= math.radians(degrees)
    return max(float(weights[inside].sum() / weights.sum()), 1e-300)
