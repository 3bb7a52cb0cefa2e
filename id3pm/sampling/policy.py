"""Who is sampled next: the whole scheduling policy.

Every step takes the best of all rows in flight, at most `max_rows`, and no more than the engine needs to be efficient;
the others pause, or wait for their first step. A row is better than another by

1. its priority class; a row past its due time competes in the first class, so that no class starves;
2. within a class, by the earlier due time;
3. among rows due at the same time, by arrival.

A row is due at its deadline, or earlier: after `STRETCH` times as long as its own steps take in a full batch, and as
many times again for each class that it stands behind the first. So 10 steps overtake 250 that arrived before, and
those finish too: whatever arrives later is due later in the end. Rows of one kind go in order of arrival, and are not
paused for one another. Stages that share a processor take turns by the same order (`id3pm.sampling.compute_lock`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from id3pm.sampling.batch import Row

STRETCH = 10.0
FIRST_CLASS = 0
_CLASS_APART_S = 1e9  # longer than any machine is up, short enough for microseconds in a float


def due_time(arrival: float, service_s: float, priority: int, deadline: float) -> float:
    """When a row should be done, in `time.monotonic()` seconds; computed once, when it arrives.

    Args:
        arrival: Seconds of its arrival.
        service_s: Seconds that its steps take in a full batch; always the same for the same steps.
        priority: Its class.
        deadline: Seconds after which nobody wants it; infinite for none.
    """
    return min(deadline, arrival + STRETCH * (1 + priority - FIRST_CLASS) * service_s)


def choose(rows: Iterable[Row], max_rows: int, enough: int, now: float) -> list[Row]:
    """The rows of the next step, the best first.

    Args:
        rows: All that are in flight.
        max_rows: Most that a step takes.
        enough: No further row is taken once the step has so many evaluations: guided rows need two.
        now: `time.monotonic()` seconds.
    """
    chosen: list[Row] = []
    evaluations = 0
    for row in heapq.nsmallest(max_rows, rows, key=lambda row: _rank(row, now)):
        if evaluations >= enough:
            break
        chosen.append(row)
        evaluations += row.next_evaluations
    return chosen


def best(rows: Iterable[Row], now: float) -> Row | None:
    """The row that goes first; `None` without rows.

    Args:
        rows: All that are in flight.
        now: `time.monotonic()` seconds.
    """
    return min(rows, key=lambda row: _rank(row, now), default=None)


def urgency(row: Row, now: float) -> float:
    """How urgent a row is, for comparison with the best rows of other stages: lower goes first."""
    first = _rank(row, now)
    return first[0] * _CLASS_APART_S + min(first[1], _CLASS_APART_S)


def _rank(row: Row, now: float) -> tuple[int, float, int]:
    return (FIRST_CLASS if row.due < now else row.request.priority, row.due, row.order)
