"""Admission: refuses requests that would wait for too long or need too much memory.

Every refusal says when to come back: in its text for people, in `retry_after_s` for programs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from id3pm.errors import DeadlineError, DrainingError, OverloadedError

DRAINED_S = 5
"""Seconds after which a server that drains is asked again: another may have taken its place."""

HOPELESS = 0.5  # of the expected time: estimates err, and a request that may be in time gets a chance


MOST = 2.0  # times a limit: callers with less than their share may exceed it up to here


class Load(NamedTuple):
    """What is in flight.

    Attributes:
        rows: Images.
        backlog_s: Seconds of work.
        callers: How many have any of it, the new one included.
    """

    rows: int
    backlog_s: float
    callers: int = 1


def has_room(total: float, own: float, limit: float, callers: int) -> bool:
    """Whether a caller may add work: up to the limit, or up to its share if others have reached the limit.

    So a caller that fills the queue keeps no other one out.

    Args:
        total: Work in flight of all callers.
        own: Work in flight of this one.
        limit: Most that one caller alone may have.
        callers: How many have work in flight, this one included.
    """
    return total <= limit or (own <= limit / callers and total <= MOST * limit)


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much work a scheduler accepts.

    Attributes:
        max_rows: Most rows that are sampled at a time.
        max_waiting: Most rows in flight behind those.
        max_backlog_s: Most seconds of work that may be in flight when a request arrives. So an idle server takes any
            work.
    """

    max_rows: int
    max_waiting: int
    max_backlog_s: float

    def check(self, load: Load, own: Load, more: int) -> None:
        """Whether more rows can be taken beside those in flight.

        Args:
            load: Of all callers.
            own: Of the new caller.
            more: New rows.

        Raises:
            OverloadedError: They exceed a limit.
        """
        most = self.max_rows + self.max_waiting
        if not has_room(load.rows + more, own.rows + more, most, load.callers):
            waiting = max(0, load.rows - self.max_rows)
            excess = load.rows + more - most
            raise overloaded(
                f"{waiting} requests wait, and with {more} more there would be more than the {self.max_waiting} "
                "that are allowed",
                load.backlog_s * min(1.0, excess / max(load.rows, 1)),
            )
        if not has_room(load.backlog_s, own.backlog_s, self.max_backlog_s, load.callers):
            raise overloaded(
                f"{load.backlog_s:.0f} s of work are in flight, and {self.max_backlog_s:g} s are allowed",
                load.backlog_s - self.max_backlog_s,
            )


def check_deadline(left_s: float, alone_s: float) -> None:
    """Refuses work that cannot be done in time, before any of it is done.

    Args:
        left_s: Seconds until the deadline; infinite for none.
        alone_s: Expected seconds of all steps on an idle machine; 0 where that is not known.

    Raises:
        DeadlineError: The deadline cannot be met.
    """
    if 0.0 < left_s < HOPELESS * alone_s:
        raise DeadlineError(
            f"the deadline cannot be met: {left_s:.3g} s are left, and the steps alone take about {alone_s:.3g} s; "
            "give more time, or ask for fewer steps"
        )


def overloaded(what: str, wait_s: float) -> OverloadedError:
    """The refusal of what is too much now.

    Args:
        what: What is too much.
        wait_s: Seconds until there may be room; at least one is asked for.
    """
    seconds = max(1, math.ceil(wait_s))
    return OverloadedError(f"{what}; retry after {seconds} s", retry_after_s=seconds)


def draining() -> DrainingError:
    """The refusal of new work while a server drains."""
    return DrainingError(
        f"this server is draining and takes no new requests: send it to another, or retry after {DRAINED_S} s",
        retry_after_s=DRAINED_S,
    )
