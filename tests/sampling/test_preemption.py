"""Paused rows give unchanged images; rows that fail, fail alone."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pytest
from fake_engine import DIFFUSION, PLAIN, FakeEngine, Inbox, KnownCost, request
from numpy.typing import NDArray
from waiting import wait_until

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE
from id3pm.engines.inputs import EngineInputs, FloatArray
from id3pm.errors import EngineError, OverloadedError
from id3pm.sampling import noise_ahead
from id3pm.sampling.scheduler import StepScheduler

# One of each sampler: x0 of the step before, noise, and guidance must all survive a pause.
KINDS = [
    SamplingOptions(sampler="dpmpp_2m", steps=30, guidance_scale=2.0),
    SamplingOptions(sampler="ddpm", steps=30, guidance_scale=3.0, guidance_low=20, guidance_high=70),
    SamplingOptions(sampler="ddim", steps=30, eta=0.5, guidance_scale=1.0),
]


def steps(count: int) -> SamplingOptions:
    return dataclasses.replace(PLAIN, steps=count)


def scheduler_of(engine: FakeEngine, max_rows: int, **more: float) -> StepScheduler:
    return StepScheduler(engine, DIFFUSION, STAGE_BASE, max_rows, cost=KnownCost(), **more)  # type: ignore[arg-type]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(held=True)


@pytest.fixture
def scheduler(engine: FakeEngine) -> Iterator[StepScheduler]:
    scheduler = scheduler_of(engine, 3)
    yield scheduler
    engine.let(10_000)
    assert scheduler.close()


def let(engine: FakeEngine, calls: int) -> None:
    """Allows that many calls, and waits until the engine is held in the next."""
    made = len(engine.calls)
    engine.let(calls)
    wait_until(lambda: len(engine.calls) == made + calls)


def alone(name: str, seed: int, options: SamplingOptions) -> NDArray[np.uint8]:
    scheduler, inbox = StepScheduler(FakeEngine(), DIFFUSION, STAGE_BASE), Inbox()
    scheduler.submit(request(name, seed=seed, options=options), inbox.receiver(name))
    image = inbox.sample(name).image
    assert scheduler.close()
    return image


def test_paused_rows_give_the_images_that_they_give_without_a_pause(
    engine: FakeEngine, scheduler: StepScheduler
) -> None:
    inbox = Inbox()
    for index, options in enumerate(KINDS):
        scheduler.submit(request(f"long {index}", seed=index, options=options), inbox.receiver(f"long {index}"))
    wait_until(lambda: bool(engine.calls))
    let(engine, 3)
    for wave in range(4):  # each makes all three pause, at different steps of theirs
        names = [f"short {wave} {index}" for index in range(3)]
        scheduler.submit_all(
            [(request(n, seed=50, options=steps(2 + index)), inbox.receiver(n)) for index, n in enumerate(names)]
        )
        let(engine, 1)
        assert (scheduler.status().active, scheduler.status().paused) == (3, 3)
        let(engine, 4)
        for name in names:
            inbox.sample(name)
    assert all(scheduler.progress(f"long {index}") for index in range(3))
    engine.let(1000)
    for index, options in enumerate(KINDS):
        sample = inbox.sample(f"long {index}")
        np.testing.assert_array_equal(sample.image, alone("x", index, options))
        assert sample.steps == 30
    assert scheduler.status()[:3] == (0, 0, 0)


def test_short_request_among_many_long_ones_finishes_soon() -> None:
    engine, inbox = FakeEngine(held=True), Inbox()
    scheduler = scheduler_of(engine, 16)
    for index in range(24):
        scheduler.submit(request(f"long {index}", options=steps(100)), inbox.receiver(f"long {index}"))
    engine.let(20)
    wait_until(lambda: len(engine.calls) == 21)
    scheduler.submit(request("short", options=steps(10)), inbox.receiver("short"))
    engine.let(12)  # the step that is under way, and its own ten
    assert inbox.sample("short").steps == 10
    assert len(inbox.order) == 1 and max(engine.calls) == 16
    engine.let(10_000)
    for index in range(24):
        inbox.sample(f"long {index}")
    assert scheduler.close()


def test_preview_of_a_paused_row_is_still_there(engine: FakeEngine, scheduler: StepScheduler) -> None:
    inbox = Inbox()
    scheduler.submit(request("long", options=steps(50)), inbox.receiver("long"))
    engine.let(4)
    wait_until(lambda: len(engine.calls) == 5)
    for index in range(3):
        scheduler.submit(request(f"{index}", options=steps(5)), inbox.receiver(f"{index}"))
    engine.let(2)
    wait_until(lambda: scheduler.status().paused == 1)
    progress = scheduler.progress("long")
    assert progress is not None and progress.step == 5 and progress.preview is not None


def test_backlog_bounds_what_is_taken_and_says_for_how_long(engine: FakeEngine) -> None:
    scheduler, inbox = scheduler_of(engine, 4, max_backlog_s=30), Inbox()  # 1 s an evaluation
    scheduler.submit(request("a", options=steps(50)), inbox.receiver("a"))  # an idle scheduler takes any work
    assert scheduler.status().backlog_s == pytest.approx(50, abs=0.1)
    with pytest.raises(OverloadedError, match=r"50 s of work are in flight, and 30 s are allowed; retry after 20 s"):
        scheduler.submit(request("b", options=steps(1)), inbox.receiver("b"))
    assert scheduler.cancel("a")
    scheduler.submit(request("b", options=steps(1)), inbox.receiver("b"))
    engine.let(10_000)
    inbox.sample("b")
    assert scheduler.close()


def test_several_requests_are_taken_together_or_not_at_all(engine: FakeEngine) -> None:
    scheduler, inbox = scheduler_of(engine, 1, max_waiting=2), Inbox()
    with pytest.raises(OverloadedError, match=r"retry after \d+ s"):
        scheduler.submit_all([(request(name), inbox.receiver(name)) for name in "abcd"])
    assert scheduler.status().waiting == 0
    scheduler.submit_all([(request(name), inbox.receiver(name)) for name in "abc"])
    engine.let(10_000)
    for name in "abc":
        inbox.sample(name)
    assert scheduler.close()


def test_a_deadline_can_be_extended_for_somebody_else(engine: FakeEngine, scheduler: StepScheduler) -> None:
    inbox = Inbox()
    for name in ("kept", "dropped"):
        scheduler.submit(request(name, deadline=time.monotonic() + 0.2), inbox.receiver(name))
    scheduler.extend("kept", None)
    scheduler.extend("dropped", 0.0)  # the longer one counts, and this is none
    time.sleep(0.25)
    engine.let(100)
    inbox.sample("kept")
    assert "the deadline passed" in str(inbox.error("dropped"))


def test_row_that_cannot_be_prepared_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise_ahead.noise

    def noise(seed: int, *arguments: object, **more: object) -> FloatArray:
        if seed == 13:
            raise MemoryError("no room for this one")
        return real(seed, *arguments, **more)  # type: ignore[arg-type]

    expected = [alone(str(seed), seed, PLAIN) for seed in (1, 2)]
    monkeypatch.setattr(noise_ahead, "noise", noise)
    engine = FakeEngine(held=True)
    scheduler, inbox = scheduler_of(engine, 4), Inbox()
    scheduler.submit_all([(request(str(seed), seed=seed), inbox.receiver(str(seed))) for seed in (1, 13, 2)])
    engine.let(1000)
    for seed, image in zip((1, 2), expected, strict=True):
        np.testing.assert_array_equal(inbox.sample(str(seed)).image, image)
    error = inbox.error("13")
    assert isinstance(error, EngineError) and "step 0 of 5: MemoryError" in str(error)
    assert scheduler.close()


def test_row_that_breaks_the_engine_fails_alone() -> None:
    class Picky(FakeEngine):
        def run(self, inputs: EngineInputs) -> FloatArray:
            if (inputs["identity"][:, 0] == 13.0).any() and len(self.calls) >= 2:
                raise RuntimeError("13")
            return super().run(inputs)

    expected = [alone(str(seed), seed, PLAIN) for seed in (1, 2)]
    scheduler, inbox = scheduler_of(Picky(), 4), Inbox()
    rows = {"1": 1.0, "bad": 13.0, "2": 1.0}
    scheduler.submit_all(
        [
            (request(name, seed=0 if name == "bad" else int(name), identity=identity), inbox.receiver(name))
            for name, identity in rows.items()
        ]
    )
    for seed, image in zip((1, 2), expected, strict=True):
        np.testing.assert_array_equal(inbox.sample(str(seed)).image, image)
    assert "step 2 of 5: RuntimeError" in str(inbox.error("bad"))
    assert scheduler.close()
