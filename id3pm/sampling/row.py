"""One request on its way through a scheduler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

from id3pm.diffusion.samplers import StepPlan
from id3pm.engines.arrays import Array
from id3pm.errors import Id3pmError
from id3pm.sampling.request import Sample, SampleRequest

OnDone = Callable[[Sample | Id3pmError], None]


class Place(NamedTuple):
    """A place in the line of all callers, on a clock that counts work; see `id3pm.sampling.policy`.

    Attributes:
        due: Earlier ones go first.
        start: Where the caller's earlier work ends, or the line was.
        end: Where the row's own work ends.
        overdue: Monotonic seconds after which it goes before all that are not.
    """

    due: float
    start: float
    end: float
    overdue: float


@dataclasses.dataclass(eq=False, kw_only=True)
class Row:
    """One request on its way through a scheduler.

    Attributes:
        request: What was asked for, validated.
        plan: Its steps.
        on_done: Takes the result, exactly once.
        submitted: Monotonic seconds of its arrival.
        due: Monotonic seconds at which it should be done; see `id3pm.sampling.policy`.
        place: In the line of all callers; the policy exchanges those of a caller's rows.
        deadline: Monotonic seconds after which the result is not wanted.
        order: Number of its arrival.
        started: Monotonic seconds of its first step, or `None` while it waits for that.
        active: It takes part in the current step; a row that has started and does not is paused.
        begun: A batch has taken it: x_T is drawn.
        step: Steps made, or enqueued on the device.
        made: Steps made, as far as the host has heard.
        count: How many steps it has.
        evaluations_left: Rows that the U-Net still has to compute for it.
        paused: x_t and the latest x0 while it is paused, float32 [3, S, S], on the engine's device.
        latest: The predictions of finished images by step `made` of all rows that took it, float32 [N, 3, S, S], on
            the engine's device, never written to again; and this row's place among them. `None` before one.
        answered: `on_done` has been or is being called.
    """

    request: SampleRequest
    plan: StepPlan
    on_done: OnDone
    submitted: float
    due: float = math.inf
    place: Place = Place(0.0, 0.0, 0.0, math.inf)
    deadline: float = math.inf
    order: int = 0
    started: float | None = None
    active: bool = False
    begun: bool = False
    step: int = 0
    made: int = 0
    count: int = dataclasses.field(init=False)
    evaluations_left: int = dataclasses.field(init=False)
    paused: tuple[Array, Array] | None = None
    latest: tuple[Array, int] | None = None
    answered: bool = False

    def __post_init__(self) -> None:
        self.count = len(self.plan)
        self.evaluations_left = self.plan.evaluations

    @property
    def finishing(self) -> bool:
        """Whether its last step has been made or enqueued."""
        return self.step == self.count

    @property
    def x0(self) -> Array | None:
        """The prediction of the finished image by step `made`, float32 [3, S, S]; `None` before one."""
        latest = self.latest
        return None if latest is None else latest[0][latest[1], ...]

    @property
    def next_evaluations(self) -> int:
        """Rows that the U-Net computes for its next step: two where that is guided, none after the last."""
        return self.plan.next_evaluations[self.step]
