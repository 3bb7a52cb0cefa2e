"""Seeds: as callers pass them, as a command line writes them, and random ones."""

from __future__ import annotations

import numbers
import re
import secrets
from collections.abc import Sequence
from typing import SupportsIndex, cast

import numpy as np

from id3pm_client._contract import MAX_SEED
from id3pm_client._errors import InvalidRequestError, shown
from id3pm_client._tensors import plain

RANDOM_SEEDS = 2**32
"""A random seed is below this, so that it can be read out and typed in."""
MOST_SEEDS = 100_000
_RANGE = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


def random_seed() -> int:
    """A seed that was not chosen; the image and its receipt say which."""
    return secrets.randbelow(RANDOM_SEEDS)


def as_seeds(value: object) -> tuple[list[int], bool]:
    """Seeds as a list, and whether `value` was a single number rather than a sequence.

    Raises:
        InvalidRequestError: Not an integer or a flat sequence of integers, or one is outside [0, 2**63 - 1].
    """
    value = plain("seed", value)
    if isinstance(value, np.ndarray):
        value = value.item() if value.ndim == 0 else list(value)
    if isinstance(value, (Sequence, range)) and not isinstance(value, (str, bytes)):
        return [_seed(f"seed[{i}]", item) for i, item in enumerate(value)], False
    return [_seed("seed", value)], True


def parse_seeds(text: str) -> list[int]:
    """Seeds as a command line has them: one, or a range with both ends such as `0-3`.

    Raises:
        InvalidRequestError: Something else.
    """
    if found := _RANGE.fullmatch(text):
        first, last = int(found[1]), int(found[2])
        if not first <= last < first + MOST_SEEDS:
            raise InvalidRequestError(f"seed {text}: a range goes up, over at most {MOST_SEEDS} seeds")
        return as_seeds(range(first, last + 1))[0]
    try:
        seed = int(text) if text.isascii() else None
    except ValueError:
        seed = None
    if seed is None:
        raise InvalidRequestError(f"seed {text[:40]!r}: must be an integer, or a range such as 0-3")
    return as_seeds(seed)[0]


def integer(name: str, value: object) -> int:
    """A whole number of Python or numpy.

    Raises:
        InvalidRequestError: Something else; also `bool`, which is an int to Python and a mistake here.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise InvalidRequestError(f"{name}={shown(value)}: must be an integer, not {type(value).__name__}")
    return int(cast(SupportsIndex, value))


def _seed(name: str, value: object) -> int:
    seed = integer(name, value)
    if not 0 <= seed <= MAX_SEED:
        raise InvalidRequestError(f"{name}={shown(seed)}: must be between 0 and 2**63 - 1")
    return seed
