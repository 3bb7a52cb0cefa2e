"""Random examples for tests: a fixed number of fixed ones, or new ones for as long as `make fuzz MINUTES=...` says."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

EXAMPLES = 60
MINUTES = os.environ.get("ID3PM_FUZZ_MINUTES")  # `make fuzz` sets it
_SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
_kinds = 0


def fuzz(**strategies: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a test take random arguments; the tests of this kind share the minutes evenly.

    Args:
        strategies: One for each random argument; the others are fixtures.
    """
    global _kinds
    _kinds += 1

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        if MINUTES is None:
            fixed = settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=_SUPPRESSED,
            )
            return fixed(given(**strategies)(test))
        minutes = float(MINUTES)
        return for_seconds(test, lambda: 60 * minutes / _kinds, **strategies)

    return decorate


def for_seconds(
    test: Callable[..., None], limit_s: Callable[[], float], **strategies: SearchStrategy[Any]
) -> Callable[..., None]:
    """A test that takes new random arguments until a time is over, at least once, and then says how many it took.

    Args:
        test: One example of it.
        limit_s: Seconds.
        strategies: As for `fuzz`.
    """
    count, end = 0, 0.0

    @functools.wraps(test)
    def one(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        if not count or time.monotonic() < end:  # the rest of a round costs nothing
            test(*args, **kwargs)
            count += 1

    fresh = settings(max_examples=50, deadline=None, database=None, suppress_health_check=_SUPPRESSED)
    round_ = fresh(given(**strategies)(one))

    def rounds(**fixtures: Any) -> None:
        nonlocal end
        began = time.monotonic()
        end = began + limit_s()
        while time.monotonic() < end:
            round_(**fixtures)
        sys.stdout.write(f"{test.__name__}: {count} examples in {time.monotonic() - began:.0f} s\n")

    rounds.__name__, rounds.__doc__ = test.__name__, test.__doc__
    rounds.__signature__ = inspect.signature(round_)  # type: ignore[attr-defined]
    return rounds
