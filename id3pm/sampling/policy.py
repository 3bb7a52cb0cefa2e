"""The scheduling policy: which rows are sampled next.

Every step takes the best of all rows in flight, at most `max_rows`, and no more than the engine needs to be efficient;
the others pause, or wait for their first step. A row is better than another of the same caller by

1. its priority class; a row past its due time competes in the first class, so that no class starves;
2. within a class, by the earlier due time;
3. among rows due at the same time, by arrival.

A row is due at its deadline, or earlier: after `STRETCH` times as long as its own steps take in a full batch, and as
many times again for each class below the first. So 10 steps overtake 250 that arrived before, and
those finish too: whatever arrives later is due later in the end. Rows of one kind go in order of arrival, and are not
paused for one another. Stages that share a processor use the same order (`id3pm.sampling.compute_lock`).

Between callers the machine is shared (after start-time fair queueing, Goyal et al. 1996). Every row adds a place for
its caller to one queue, on a virtual clock that counts work. The place starts where all work of the caller in flight
ends, and no earlier than the places that other callers begin now. It is due `STRETCH` times its work later. A caller's
best row has its first place, the next row the second. So a caller with a hundred requests delays another one by the
rows being sampled, not by the ninety that wait. No option of a caller moves a place forward: neither a deadline, nor a
class above the usual one. A place that is overdue in seconds goes first, so that none starves. A caller's places fall
due one after the other, so many of them give no advantage.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from id3pm.sampling.row import Place, Row

STRETCH = 10.0
FIRST_CLASS = 0
USUAL_CLASS = 1
_CLASS_APART_S = 1e9  # longer than any uptime, short enough for microseconds in a float


def due_time(arrival: float, service_s: float, priority: int, deadline: float) -> float:
    """When a row should be done, in `time.monotonic()` seconds; computed once, when it arrives.

    Args:
        arrival: Seconds of its arrival.
        service_s: Seconds that its steps take in a full batch; always the same for the same steps.
        priority: Its class.
        deadline: Seconds after which the result is of no use; infinite for none.
    """
    return min(deadline, arrival + STRETCH * (1 + priority - FIRST_CLASS) * service_s)


def take_place(
    own: Iterable[Place],
    clock: float,
    now: float,
    service_s: float,
    work_s: float,
    priority: int = USUAL_CLASS,
) -> Place:
    """The place of a new row in the queue of callers; computed once, when it arrives.

    Args:
        own: Places of the same caller's rows in flight.
        clock: Virtual time of the queue: the latest start of begun work, or end of finished work.
        now: `time.monotonic()` seconds.
        service_s: Seconds that its steps take in a full batch.
        work_s: Its seconds of work on the whole machine.
        priority: Its class.
    """
    own = list(own)
    stretch = STRETCH * (1 + max(priority, USUAL_CLASS) - FIRST_CLASS)
    start = max([clock, *(place.end for place in own)])
    overdue = max([now, *(place.overdue for place in own)]) + stretch * service_s
    return Place(start + stretch * work_s, start, start + work_s, overdue)


def standing(place: Place, priority: int, now: float) -> tuple[int, float]:
    """Sort key of a caller among several: lowest first.

    Args:
        place: The caller's first.
        priority: Class of the row that uses it.
        now: `time.monotonic()` seconds.
    """
    if place.overdue < now:
        return FIRST_CLASS, place.overdue
    return max(priority, USUAL_CLASS), place.due


def choose(rows: Iterable[Row], max_rows: int, enough: int, most: int, now: float) -> list[Row]:
    """The rows of the next step, the best first.

    Args:
        rows: All that are in flight.
        max_rows: Most that a step takes.
        enough: No further row is taken once the step has so many evaluations: guided rows need two.
        most: Evaluations of one engine call; a second row does not make a step need two calls.
        now: `time.monotonic()` seconds.
    """
    chosen: list[Row] = []
    evaluations = 0
    for row in _line(rows, now)[:max_rows]:
        more = row.next_evaluations
        if evaluations >= enough or (chosen and evaluations + more > most):
            break
        chosen.append(row)
        evaluations += more
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
    group = USUAL_CLASS if row.due < now else max(row.request.priority, USUAL_CLASS)
    return group * _CLASS_APART_S + min(row.due, _CLASS_APART_S)


def _line(rows: Iterable[Row], now: float) -> list[Row]:
    """All rows, the best first; each caller's places are reassigned, because a new row may precede its older ones."""
    callers: dict[str, list[Row]] = {}
    for row in rows:
        callers.setdefault(row.request.caller, []).append(row)
    for own in callers.values():
        own.sort(key=lambda row: _rank(row, now))
        for row, place in zip(own, sorted(row.place for row in own), strict=True):
            row.place = place
    if len(callers) == 1:
        return own
    return sorted(itertools.chain(*callers.values()), key=lambda row: standing(row.place, row.request.priority, now))


def _rank(row: Row, now: float) -> tuple[int, float, int]:
    """Sort key of a row among the rows of one caller."""
    return (FIRST_CLASS if row.due < now else row.request.priority, row.due, row.order)
