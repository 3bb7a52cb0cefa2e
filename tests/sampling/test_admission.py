from __future__ import annotations

import math
import time

import pytest
from fake_engine import DIFFUSION, PLAIN, FakeEngine, Inbox, request

from id3pm.diffusion.noise import STAGE_BASE
from id3pm.errors import DeadlineError
from id3pm.sampling.admission import check_deadline
from id3pm.sampling.cost import CostModel
from id3pm.sampling.scheduler import StepScheduler


@pytest.mark.parametrize("left_s", [math.inf, 100.0, 5.0, 0.0, -3.0])
def test_what_may_be_done_in_time_is_taken(left_s: float) -> None:
    check_deadline(left_s, 10.0)  # what is over already is answered like every request that is late


def test_the_hopeless_hear_it_with_numbers() -> None:
    with pytest.raises(DeadlineError, match=r"2\.5 s are left.*take about 10 s.*fewer steps"):
        check_deadline(2.5, 10.0)


def test_hopeless_work_is_refused_before_the_first_step_and_only_by_who_knows_the_engine() -> None:
    engine, inbox, cost = FakeEngine(), Inbox(), CostModel()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, cost=cost)
    soon = request("a", options=PLAIN, deadline=time.monotonic() + 0.2)  # 5 steps
    scheduler.submit(soon, inbox.receiver("a"))  # nothing is known yet
    inbox.sample("a")
    assert len(engine.calls) == 5
    cost.observe(1, 1.0)
    for _ in range(100):
        cost.observe(1, 1.0)
    with pytest.raises(DeadlineError, match="give more time"):
        scheduler.submit(request("b", options=PLAIN, deadline=time.monotonic() + 0.2), inbox.receiver("b"))
    assert len(engine.calls) == 5
    assert scheduler.close()
