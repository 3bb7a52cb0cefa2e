"""Random numbers of a plan: each a pure function of the plan's seed and of what it is for."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from id3pm.errors import InvalidInputError

IDENTITY, VARIATION = 0, 1
"""What the numbers of `generator` are for."""


def generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Random numbers for the identity of this number.

    Args:
        seed: Of the plan, 0 .. 2^63 - 1.
        number: Of the identity, or of the candidate.
        purpose: `IDENTITY` or `VARIATION`.
    """
    # A counter-based generator: no draw of one identity moves those of another.
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64), counter=[0, 0, 0, purpose]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """A number to be drawn: uniform from a range, or one of several.

    Attributes:
        low: Least value, where `values` is empty.
        high: Largest value.
        values: To choose from.
    """

    low: float = 0.0
    high: float = 0.0
    values: tuple[float, ...] = ()

    def value(self, random: np.random.Generator) -> float:
        """One of the numbers, exact in float32."""
        if self.values:
            return float(np.float32(self.values[int(random.integers(len(self.values)))]))
        drawn = np.float32(self.low if self.low == self.high else random.uniform(self.low, self.high))
        return float(np.clip(drawn, np.float32(self.low), np.float32(self.high)))

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest value that it can give."""
        return (min(self.values), max(self.values)) if self.values else (self.low, self.high)


def parse_draw(text: str, name: str) -> Draw:
    """A number to be drawn, from `2`, `1.5..3` (uniform) or `1.5,2,3` (one of these).

    Raises:
        InvalidInputError: Something else.
    """
    low, dots, high = text.partition("..")
    try:
        if dots:
            found = Draw(low=float(low), high=float(high))
        else:
            found = Draw(values=tuple(float(part) for part in text.split(",")))
    except ValueError:
        raise InvalidInputError(
            f"{name}={text[:64]!r}: give a number, a range such as 1.5..3, or values such as 1.5,2,3"
        ) from None
    if not all(math.isfinite(bound) for bound in (*found.bounds, *found.values)) or found.bounds[0] > found.bounds[1]:
        raise InvalidInputError(f"{name}={text[:64]!r}: must be finite, the lower number first")
    return found
