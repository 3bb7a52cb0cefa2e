"""The status of a step scheduler."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RequestProgress(NamedTuple):
    """Progress of a request: steps made, steps in all, and a picture, uint8 [S, S, 3], if it was requested.

    The picture is the predicted image. At step 0 it is the image to upsample, or `None` where there is none.
    """

    step: int
    steps: int
    preview: NDArray[np.uint8] | None


class Status(NamedTuple):
    """A snapshot.

    The loop records its time before every step and every second when idle, so a healthy age is at most one step.

    Attributes:
        active: Rows that take part in the current step.
        waiting: Rows that wait for their first step.
        paused: Rows that have started and wait while others are sampled.
        loop_age_s: Seconds since the loop last recorded its time.
        step_s: Seconds that the current step, or else the last one, was expected to take.
        steps: Steps made since the start, of any number of rows.
        backlog_s: Seconds of work in flight.
        draining: No new work is taken.
    """

    active: int
    waiting: int
    paused: int
    loop_age_s: float
    step_s: float
    steps: int
    backlog_s: float
    draining: bool
