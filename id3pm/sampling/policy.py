"""The scheduling policy: which rows are sampled next.

Every step takes the best of all rows in flight, at most `max_rows`, and no more than the engine needs to be efficient;
the others pause, or wait for their first step. A row is better than another of the same caller by

1. its priority class; a row past its due time competes in the first class, so that no class starves;
2. within a class, by the earlier due time;
3. among rows due at the same time, by arrival.

A row is due at its deadline, or earlier: after `STRETCH` times as long as its own steps take in a full batch, and as
many times again for each class that it stands behind the first. So 10 steps overtake 250 that arrived before, and
those finish too: whatever arrives later is due later in the end. Rows of one kind go in order of arrival, and are not
paused for one another. Stages that share a processor take turns by the same order (`id3pm.sampling.compute_lock`).

Between callers the machine is shared fairly (start-time fair queueing, Goyal et al. 1996). Every row brings its caller
a place in the line, on a clock that counts work: it stands behind all work that the same caller has in flight, and
beside what other callers begin now. The best row of a caller has its first place, the next one its second. So who sends
a hundred requests delays the next caller's first one by what is at work, not by the ninety that wait. Classes count
between callers, too, but none is above the usual one: who could choose to go first would.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from id3pm.sampling.batch import Place, Row

STRETCH = 10.0
FIRST_CLASS = 0
USUAL_CLASS = 1
_CLASS_APART_S = 1e9  # longer than any machine is up, short enough for microseconds in a float


def due_time(arrival: float, service_s: float, priority: int, deadline: float) -> float:
    """When a row should be done, in `time.monotonic()` seconds; computed once, when it arrives.

    Args:
        arrival: Seconds of its arrival.
        service_s: Seconds that its steps take in a full batch; always the same for the same steps.
        priority: Its class.
        deadline: Seconds after which it is not wanted; infinite for none.
    """
    return min(deadline, arrival + STRETCH * (1 + priority - FIRST_CLASS) * service_s)


def take_place(own: Iterable[Place], clock: float, patience_s: float, service_s: float, work_s: float) -> Place:
    """The place that a row brings its caller; computed once, when it arrives.

    Args:
        own: Places of the same caller's work in flight.
        clock: Where the line is: the latest start of what has been begun, or end of what has been done.
        patience_s: Seconds from its arrival until it is due.
        service_s: Seconds that its steps take in a full batch.
        work_s: Seconds of the whole machine that it takes.
    """
    start = max([clock, *(place.end for place in own)])
    return Place(start + patience_s * work_s / service_s, start, start + work_s)


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
    for row in _line(rows, now)[:max_rows]:
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
    return next(iter(_line(rows, now)), None)


def urgency(row: Row, now: float) -> float:
    """How urgent a row is, for comparison with the best rows of other stages: lower goes first."""
    return _class_among_callers(row, now) * _CLASS_APART_S + min(row.due, _CLASS_APART_S)


def _line(rows: Iterable[Row], now: float) -> list[Row]:
    """All rows, the best first; a caller's places are handed to its rows anew, for a new row may go before old ones."""
    callers: dict[str, list[Row]] = {}
    for row in rows:
        callers.setdefault(row.request.caller, []).append(row)
    for own in callers.values():
        own.sort(key=lambda row: _rank(row, now))
        for row, place in zip(own, sorted(row.place for row in own), strict=True):
            row.place = place
    if len(callers) == 1:
        return own
    return sorted(itertools.chain(*callers.values()), key=lambda row: (_class_among_callers(row, now), row.place))


def _rank(row: Row, now: float) -> tuple[int, float, int]:
    """Among the rows of one caller."""
    return (FIRST_CLASS if row.due < now else row.request.priority, row.due, row.order)


def _class_among_callers(row: Row, now: float) -> int:
    return USUAL_CLASS if row.due < now else max(row.request.priority, USUAL_CLASS)
