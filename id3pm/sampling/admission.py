"""Who is turned away: requests that would have to wait for too long, or would need too much memory.

Every refusal says `retry after N s`, which clients read.
"""

from __future__ import annotations

import dataclasses
import math

from id3pm.errors import DeadlineError, OverloadedError

DRAINING = "this server is draining and takes no new requests: send it to another, or retry after 5 s"

HOPELESS = 0.5  # of the expected time: estimates err, and who may be in time gets a chance


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much a scheduler takes on.

    Attributes:
        max_rows: Most rows that are sampled at a time.
        max_waiting: Most rows in flight behind those.
        max_backlog_s: Most seconds of work that may be in flight when more comes. So an idle server takes any work.
    """

    max_rows: int
    max_waiting: int
    max_backlog_s: float

    def check(self, in_flight: int, more: int, backlog_s: float) -> None:
        """Whether more rows can be taken beside those in flight, which are `backlog_s` seconds of work.

        Raises:
            OverloadedError: They cannot.
        """
        excess = in_flight + more - self.max_rows - self.max_waiting
        if excess > 0:
            waiting = max(0, in_flight - self.max_rows)
            raise OverloadedError(
                f"{waiting} requests wait, and with {more} more there would be more than the {self.max_waiting} "
                f"that are allowed; retry after {_whole(backlog_s * min(1.0, excess / max(in_flight, 1)))} s"
            )
        if backlog_s > self.max_backlog_s:
            raise OverloadedError(
                f"{backlog_s:.0f} s of work are in flight, and {self.max_backlog_s:g} s are allowed; "
                f"retry after {_whole(backlog_s - self.max_backlog_s)} s"
            )


def check_deadline(left_s: float, alone_s: float) -> None:
    """Refuses work that nobody can do in time, before any of it is done.

    Args:
        left_s: Seconds until the deadline; infinite for none.
        alone_s: Expected seconds of all steps on an idle machine; 0 where that is not known.

    Raises:
        DeadlineError: Hopeless.
    """
    if 0.0 < left_s < HOPELESS * alone_s:
        raise DeadlineError(
            f"the deadline cannot be met: {left_s:.3g} s are left, and the steps alone take about {alone_s:.3g} s; "
            "give more time, or ask for fewer steps"
        )


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
