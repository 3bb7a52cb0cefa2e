"""Order of sampling, refused requests, and the end of a scheduler."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator

import pytest
from fake_engine import DIFFUSION, PLAIN, FakeEngine, Inbox, KnownCost, request
from waiting import wait_until

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE
from id3pm.errors import CancelledError, DeadlineError, DrainingError, InvalidInputError, OverloadedError
from id3pm.sampling.cost import CostModel
from id3pm.sampling.scheduler import StepScheduler


def steps(count: int) -> SamplingOptions:
    return dataclasses.replace(PLAIN, steps=count)


class Bench:
    """A scheduler on an engine whose calls the test allows one by one."""

    def __init__(self, max_rows: int = 2, max_waiting: int = 10) -> None:
        self.engine = FakeEngine(held=True)
        self.scheduler = StepScheduler(self.engine, DIFFUSION, STAGE_BASE, max_rows, max_waiting, cost=KnownCost())
        self.inbox = Inbox()

    def submit(self, name: str, **kwargs: object) -> None:
        self.scheduler.submit(request(name, **kwargs), self.inbox.receiver(name))  # type: ignore[arg-type]

    def occupy(self, *names: str, count: int = 50) -> None:
        """Starts requests of many steps and waits until the engine is held in a call with all of them."""
        for name in names:
            self.submit(name, options=steps(count))
        wait_until(lambda: bool(self.engine.calls))
        if len(self.engine.seen) < len(names):  # the loop was quicker than the second submit
            self.engine.let(1)
            wait_until(lambda: len(self.engine.calls) == 2)
        assert len(self.engine.seen) == len(names)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.let(10_000)
    assert bench.scheduler.close()


@pytest.fixture
def single() -> Iterator[Bench]:
    bench = Bench(max_rows=1, max_waiting=3)
    yield bench
    bench.engine.let(10_000)
    assert bench.scheduler.close()


def test_one_call_per_step_holds_all_active_rows(bench: Bench) -> None:
    bench.occupy("a", "b")
    before = len(bench.engine.calls)
    bench.engine.let(3)
    wait_until(lambda: len(bench.engine.calls) == before + 3)
    assert bench.engine.calls[before:] == [2, 2, 2]


def test_short_request_does_not_wait_for_a_long_one(bench: Bench) -> None:
    bench.occupy("long", count=100)
    bench.submit("short", options=steps(3))
    bench.engine.let(4)
    assert bench.inbox.sample("short").steps == 3
    progress = bench.scheduler.progress("long")
    assert progress is not None and progress.step <= 5 and progress.steps == 100


def test_place_that_gets_free_is_taken_in_the_next_step(bench: Bench) -> None:
    bench.occupy("a", "b", count=6)
    bench.submit("c", options=steps(6))
    assert bench.scheduler.status().waiting == 1
    bench.engine.let(20)
    for name in ("a", "b", "c"):
        bench.inbox.sample(name)
    assert len(bench.engine.calls) == 12  # six for a, and c right behind it


def test_requests_go_by_priority_then_deadline_then_arrival(single: Bench) -> None:
    now = time.monotonic()
    single.occupy("first")
    single.submit("late deadline", options=steps(50), deadline=now + 20)
    single.submit("soon deadline", options=steps(50), deadline=now + 10)
    single.submit("urgent", options=steps(50), priority=0)
    assert single.scheduler.cancel("first")
    single.submit("no deadline", options=steps(50))
    single.engine.let(300)
    for name in ("urgent", "soon deadline", "late deadline", "no deadline"):
        single.inbox.sample(name)
    assert single.inbox.order == ["first", "urgent", "soon deadline", "late deadline", "no deadline"]


def test_equal_requests_enter_in_order_of_arrival(single: Bench) -> None:
    single.occupy("first")
    names = ["z", "a", "m"]
    for name in names:
        single.submit(name, options=steps(1))
    single.scheduler.cancel("first")
    single.engine.let(10)
    for name in names:
        single.inbox.sample(name)
    assert single.inbox.order[1:] == names


def test_equal_requests_keep_their_order_while_the_engine_turns_out_to_be_faster() -> None:
    """Each step of the long request teaches that steps are cheap; no later request is due earlier for that."""
    cost = CostModel()
    cost.observe(1, 10.0)  # what a busy start may measure
    engine = FakeEngine(held=True)
    scheduler, inbox = StepScheduler(engine, DIFFUSION, STAGE_BASE, max_rows=1, cost=cost), Inbox()
    scheduler.submit(request("first", options=steps(90), priority=0), inbox.receiver("first"))
    names = ["early", "later", "last"]
    for name in names:
        scheduler.submit(request(name, options=steps(5), priority=1), inbox.receiver(name))
        engine.let(30)
        seen = 30 * (1 + names.index(name))
        wait_until(lambda seen=seen: len(engine.calls) >= seen)
    engine.let(100)
    for name in names:
        inbox.sample(name)
    assert cost.step_s(1) < 0.1 and inbox.order == ["first", *names]
    assert scheduler.close()


def test_full_queue_turns_requests_away_and_says_how_many_wait(single: Bench) -> None:
    single.occupy("active")
    for name in ("a", "b", "c"):
        single.submit(name)
    with pytest.raises(OverloadedError, match="3 requests wait"):
        single.submit("d")
    single.scheduler.cancel("b")
    single.submit("d")
    single.engine.let(100)
    assert [type(single.inbox.outcome(name)).__name__ for name in "abcd"] == [
        "Sample",
        "CancelledError",
        "Sample",
        "Sample",
    ]


def test_id_in_flight_cannot_be_used_twice_but_again_later(single: Bench) -> None:
    single.occupy("active")
    with pytest.raises(InvalidInputError, match="'active' is in flight"):
        single.submit("active")
    single.scheduler.cancel("active")
    inbox = Inbox()
    single.scheduler.submit(request("active"), inbox.receiver("again"))
    single.engine.let(10)
    inbox.sample("again")


def test_cancelled_while_waiting_is_answered_at_once(single: Bench) -> None:
    single.occupy("active")
    single.submit("waiting")
    assert single.scheduler.cancel("waiting")
    assert isinstance(single.inbox.error("waiting"), CancelledError)
    assert not single.scheduler.cancel("waiting")
    assert single.scheduler.status()[:2] == (1, 0)


def test_cancelled_while_active_is_answered_at_once_and_leaves_the_batch(bench: Bench) -> None:
    bench.occupy("a", "b")
    assert bench.scheduler.cancel("a")
    assert isinstance(bench.inbox.error("a"), CancelledError)  # although the engine call has not ended
    made = len(bench.engine.calls)
    bench.engine.let(2)
    wait_until(lambda: len(bench.engine.calls) == made + 2)
    assert bench.engine.calls[-1] == 1


def test_deadline_while_waiting(single: Bench) -> None:
    single.occupy("active")
    single.submit("late", deadline=time.monotonic() - 1)
    single.engine.let(1)
    error = single.inbox.error("late")
    assert isinstance(error, DeadlineError) and "step 0 of 5" in str(error)


def test_deadline_while_active(bench: Bench) -> None:
    bench.submit("a", options=steps(50), deadline=time.monotonic() + 0.15)
    bench.submit("b", options=steps(5))
    bench.engine.let(2)
    time.sleep(0.2)
    bench.engine.let(10)
    error = bench.inbox.error("a")
    assert isinstance(error, DeadlineError) and "of 50" in str(error)
    bench.inbox.sample("b")


def test_progress_counts_steps_and_shows_the_predicted_image(single: Bench) -> None:
    single.submit("a", options=steps(4))
    wait_until(lambda: bool(single.engine.calls))
    start = single.scheduler.progress("a")
    assert start is not None and start == (0, 4, None)
    single.engine.let(2)
    wait_until(lambda: len(single.engine.calls) == 3)
    progress = single.scheduler.progress("a")
    assert progress is not None and progress[:2] == (2, 4)
    assert progress.preview is not None
    assert progress.preview.shape == (8, 8, 3) and progress.preview.dtype.name == "uint8" and progress.preview.std() > 0
    single.engine.let(2)
    single.inbox.sample("a")
    assert single.scheduler.progress("a") is None


def test_status_counts_and_heartbeat_shows_a_hanging_engine(bench: Bench) -> None:
    bench.occupy("a", "b")
    bench.submit("c")
    time.sleep(0.3)
    status = bench.scheduler.status()
    assert (status.active, status.waiting, status.draining) == (2, 1, False)
    assert status.loop_age_s >= 0.3
    made = len(bench.engine.calls)
    bench.engine.let(1)
    wait_until(lambda: len(bench.engine.calls) > made)
    assert bench.scheduler.status().loop_age_s < status.loop_age_s


def test_idle_scheduler_is_alive() -> None:
    scheduler = StepScheduler(FakeEngine(), DIFFUSION, STAGE_BASE)
    wait_until(lambda: scheduler.status().loop_age_s > 0.5)
    wait_until(lambda: scheduler.status().loop_age_s < 0.5)
    assert scheduler.close()


def test_draining_scheduler_finishes_but_takes_nothing(bench: Bench) -> None:
    bench.occupy("active", count=3)
    bench.submit("waiting", options=steps(1))
    bench.scheduler.drain()
    with pytest.raises(DrainingError):
        bench.submit("new")
    bench.engine.let(10)
    bench.inbox.sample("active")
    bench.inbox.sample("waiting")
    wait_until(lambda: bench.scheduler.status()[:2] == (0, 0))
    assert bench.scheduler.status().draining


def test_close_finishes_what_is_in_flight() -> None:
    bench = Bench()
    for name in "abcd":
        bench.submit(name)
    bench.engine.let(100)
    assert bench.scheduler.close(timeout_s=10)
    for name in "abcd":
        bench.inbox.sample(name)
    with pytest.raises(DrainingError):
        bench.submit("late")


def test_close_cancels_what_does_not_finish_in_time() -> None:
    others = threading.enumerate()
    bench = Bench()
    bench.occupy("a", "b")
    bench.submit("c")
    assert not bench.scheduler.close(timeout_s=0.05)  # the engine call still hangs
    for name in "abc":
        assert isinstance(bench.inbox.error(name), CancelledError)
    bench.engine.let(1)
    wait_until(lambda: bench.scheduler.close(timeout_s=0.1))
    threads = (thread.name for thread in threading.enumerate() if thread not in others)
    assert not [name for name in threads if name.startswith("step-scheduler")]
