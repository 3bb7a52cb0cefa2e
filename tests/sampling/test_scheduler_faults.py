"""An error fails only the rows concerned; the loop continues."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fake_engine import DIFFUSION, POISON, FakeEngine, Inbox, request
from waiting import wait_until

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE
from id3pm.errors import EngineError, Id3pmError, InvalidOptionError
from id3pm.sampling.request import Sample
from id3pm.sampling.scheduler import StepScheduler


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def scheduler(engine: FakeEngine) -> Iterator[StepScheduler]:
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, max_rows=4)
    yield scheduler
    assert scheduler.close()


def test_engine_failure_reaches_the_active_rows_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(held=True)
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, max_rows=1)
    inbox = Inbox()
    scheduler.submit(request("active"), inbox.receiver("active"))
    wait_until(lambda: bool(engine.calls))
    scheduler.submit(request("waiting"), inbox.receiver("waiting"))
    engine.error = RuntimeError("/secret/path/model.onnx: no such file")
    with caplog.at_level(logging.ERROR, "id3pm.sampling.scheduler"):
        engine.let(2)  # it is tried once more
        error = inbox.error("active")
    assert isinstance(error, EngineError)
    assert "step 0 of 5: RuntimeError" in str(error) and "/secret" not in str(error)
    assert "/secret/path" in caplog.text  # the operator is told
    engine.error = None
    engine.let(100)
    inbox.sample("waiting")
    assert scheduler.close()


def test_a_step_that_fails_once_harms_nobody() -> None:
    engine = FakeEngine(held=True)
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, max_rows=1)
    inbox = Inbox()
    scheduler.submit(request("a"), inbox.receiver("a"))
    wait_until(lambda: bool(engine.calls))
    engine.error = MemoryError()
    engine.let(1)
    wait_until(lambda: len(engine.calls) > 1)
    engine.error = None
    engine.let(100)
    assert inbox.sample("a").steps == 5
    assert scheduler.close()


def test_own_errors_of_an_engine_are_passed_on(engine: FakeEngine, scheduler: StepScheduler) -> None:
    engine.error = EngineError("no optimisation profile covers 3 rows")
    inbox = Inbox()
    for name in "ab":
        scheduler.submit(request(name), inbox.receiver(name))
    assert "no optimisation profile covers 3 rows" in str(inbox.error("a"))
    assert inbox.error("a") is not inbox.error("b")  # each is raised in a thread of its own
    engine.error = None
    scheduler.submit(request("c"), inbox.receiver("c"))
    inbox.sample("c")


def test_engine_that_returns_nonsense_fails_the_rows(engine: FakeEngine, scheduler: StepScheduler) -> None:
    engine.run = lambda inputs: np.zeros((1, 2), np.float32)  # type: ignore[method-assign]
    inbox = Inbox()
    scheduler.submit(request("a"), inbox.receiver("a"))
    assert isinstance(inbox.error("a"), EngineError)
    del engine.run  # type: ignore[method-assign]
    scheduler.submit(request("b"), inbox.receiver("b"))
    inbox.sample("b")


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_row_that_is_not_finite_fails_alone(
    engine: FakeEngine, scheduler: StepScheduler, guidance_scale: float
) -> None:
    options = SamplingOptions(steps=5, guidance_scale=guidance_scale)
    inbox, alone = Inbox(), Inbox()
    scheduler.submit(request("good", options=options), alone.receiver("good"))
    expected = alone.sample("good").image
    engine.delay_s = 0.01
    for name, identity in {"good": 1.0, "bad": POISON, "other": 2.0}.items():
        scheduler.submit(request(name, options=options, identity=identity), inbox.receiver(name))
    error = inbox.error("bad")
    assert isinstance(error, EngineError) and "step 1 is not finite" in str(error)
    np.testing.assert_array_equal(inbox.sample("good").image, expected)
    inbox.sample("other")


def test_failing_receiver_is_logged_and_harms_nobody(
    engine: FakeEngine, scheduler: StepScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Sample | Id3pmError] = []

    def on_done(outcome: Sample | Id3pmError) -> None:
        calls.append(outcome)
        raise ValueError("broken receiver")

    inbox = Inbox()
    engine.delay_s = 0.01
    with caplog.at_level(logging.ERROR, "id3pm.sampling.scheduler"):
        scheduler.submit(request("broken"), on_done)
        scheduler.submit(request("good"), inbox.receiver("good"))
        inbox.sample("good")
        wait_until(lambda: "broken receiver" in caplog.text)
    assert len(calls) == 1


def test_receiver_is_called_while_no_lock_is_held(scheduler: StepScheduler) -> None:
    free: list[bool] = []

    def on_done(_: Sample | Id3pmError) -> None:
        other = threading.Thread(target=scheduler.status)  # a thread of its own, since the lock is reentrant
        other.start()
        other.join(timeout=2)
        free.append(not other.is_alive())

    scheduler.submit(request("finished"), on_done)
    wait_until(lambda: len(free) == 1)
    scheduler.submit(request("cancelled", options=SamplingOptions(steps=100)), on_done)
    scheduler.cancel("cancelled")
    wait_until(lambda: len(free) == 2)
    assert free == [True, True]


def test_receiver_may_use_the_scheduler(scheduler: StepScheduler) -> None:
    inbox = Inbox()
    scheduler.submit(
        request("a"), lambda outcome: scheduler.submit(request("a", seed=1), inbox.receiver("sent by the receiver"))
    )
    inbox.sample("sent by the receiver")


def test_a_step_of_several_rows_is_one_engine_call(scheduler: StepScheduler) -> None:
    options = SamplingOptions(steps=3, guidance_scale=2.0)
    small = FakeEngine(max_batch=3, held=True)
    split = StepScheduler(small, DIFFUSION, STAGE_BASE, max_rows=4)
    inbox, whole = Inbox(), Inbox()
    for seed in range(4):
        split.submit(request(str(seed), seed=seed, options=options), inbox.receiver(str(seed)))
        scheduler.submit(request(str(seed), seed=seed, options=options), whole.receiver(str(seed)))
    small.let(1000)
    for seed in range(4):
        np.testing.assert_array_equal(inbox.sample(str(seed)).image, whole.sample(str(seed)).image)
    assert set(small.calls) == {2}, "a second guided row would make it two calls"
    assert split.close()


def test_options_that_the_process_cannot_do_are_refused_at_once(engine: FakeEngine) -> None:
    scheduler = StepScheduler(engine, DiffusionConfig(diffusion_steps=10), STAGE_BASE)
    with pytest.raises(InvalidOptionError, match="steps=11"):
        scheduler.submit(request("a", options=SamplingOptions(steps=11)), lambda outcome: None)
    assert scheduler.status().active == scheduler.status().waiting == 0
    assert scheduler.close()


def test_unconditional_rows_are_added_only_inside_the_guidance_interval() -> None:
    engine = FakeEngine()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    inbox = Inbox()
    # 5 steps of 100: time steps 99, 74, 50, 25, 0
    options = SamplingOptions(steps=5, guidance_scale=2.0, guidance_low=20, guidance_high=60)
    scheduler.submit(request("a", options=options, identity=3.0), inbox.receiver("a"))
    assert inbox.sample("a").evaluations == 7
    assert engine.calls == [1, 1, 2, 2, 1]
    assert scheduler.close()
