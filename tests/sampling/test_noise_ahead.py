"""Noise is drawn ahead, the nearest step first, within its bytes, and for rows that are still there."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fake_engine import DIFFUSION, Inbox, request
from strict_engine import HostEngine, StrictEngine
from waiting import wait_until

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, noise
from id3pm.diffusion.samplers import plan
from id3pm.sampling import noise_ahead
from id3pm.sampling.noise_ahead import STEPS_AHEAD, NoiseAhead
from id3pm.sampling.row import Row
from id3pm.sampling.scheduler import StepScheduler

SHAPE = (3, 8, 8)
BYTES = 4 * 3 * 8 * 8
OPTIONS = SamplingOptions(sampler="ddpm", steps=20, guidance_scale=1.0)


class Draws:
    """`noise` that waits until it may, and remembers what was drawn: (seed, draw)."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []
        self.open = threading.Event()

    def __call__(self, seed: int, stage: int, draw: int, shape: tuple[int, ...], out: np.ndarray) -> np.ndarray:
        self.made.append((seed, draw))
        assert self.open.wait(20)
        return noise(seed, stage, draw, shape, out)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    made = Draws()
    monkeypatch.setattr(noise_ahead, "noise", made)
    return made


@pytest.fixture
def ahead(draws: Draws) -> Iterator[NoiseAhead]:
    made = NoiseAhead(STAGE_BASE, SHAPE, lambda shape: np.empty(shape, np.float32))
    yield made
    draws.open.set()
    made.close()


def row(seed: int, options: SamplingOptions = OPTIONS) -> Row:
    steps = plan(DIFFUSION, options, learn_sigma=True)
    return Row(request=request(str(seed), seed=seed, options=options), plan=steps, on_done=lambda _: None, submitted=0)


def sampled(seed: int, step: int = 0) -> Row:
    made = row(seed)
    made.begun, made.step = True, step
    return made


def test_several_steps_are_drawn_ahead_and_the_nearest_of_all_rows_first(draws: Draws, ahead: NoiseAhead) -> None:
    rows = [sampled(seed) for seed in range(3)]
    ahead.prefetch(rows)
    draws.open.set()
    expected = [(seed, draw) for draw in range(1, STEPS_AHEAD + 1) for seed in range(3)]
    wait_until(lambda: len(draws.made) == len(expected))
    assert draws.made == expected
    for one in rows:
        one.step = 1
    ahead.prefetch(rows)
    wait_until(lambda: len(draws.made) == len(expected) + 3)
    assert draws.made[-3:] == [(seed, STEPS_AHEAD + 1) for seed in range(3)], "one more step each"


def test_a_step_without_noise_is_passed_over(draws: Draws, ahead: NoiseAhead) -> None:
    """The last one; and all steps of a sampler without noise."""
    draws.open.set()
    still = row(7, SamplingOptions(sampler="dpmpp_2m", steps=20, guidance_scale=1.0))
    ahead.begin([still])
    ahead.prefetch([sampled(1, step=17)])
    wait_until(lambda: len(draws.made) == 3)
    assert draws.made == [(7, 0), (1, 18), (1, 19)]


def test_what_is_drawn_ahead_is_bounded_in_bytes_with_room_for_rows_that_arrive(draws: Draws) -> None:
    ahead = NoiseAhead(STAGE_BASE, SHAPE, lambda shape: np.empty(shape, np.float32), limit_bytes=8 * BYTES + 5)
    draws.open.set()
    some, arrived = [sampled(seed) for seed in range(2)], [row(seed) for seed in range(10, 20)]
    ahead.prefetch(some)
    wait_until(lambda: len(draws.made) == 4)
    ahead.begin(arrived)
    wait_until(lambda: len(draws.made) == 8)
    assert draws.made == [(0, 1), (1, 1), (0, 2), (1, 2), (10, 0), (10, 1), (11, 0), (11, 1)]
    for taken in (1, 2):
        ahead.take(some, [taken, taken])
        for one in some:
            one.step += 1
        ahead.prefetch(some)
        wait_until(lambda taken=taken: len(draws.made) == 8 + 2 * taken)  # type: ignore[misc]
    assert set(draws.made[8:]) == {(0, 3), (1, 3), (0, 4), (1, 4)}
    ahead.drop(arrived[0])
    ahead.prefetch([])
    wait_until(lambda: len(draws.made) == 14)
    assert draws.made[12:] == [(12, 0), (12, 1)], "there is room again for one that had arrived"
    ahead.close()
    assert len(draws.made) == 14


def test_the_next_step_of_all_rows_may_use_the_room_of_those_that_have_not_arrived(draws: Draws) -> None:
    ahead = NoiseAhead(STAGE_BASE, SHAPE, lambda shape: np.empty(shape, np.float32), limit_bytes=8 * BYTES)
    draws.open.set()
    ahead.prefetch([sampled(seed) for seed in range(10)])
    wait_until(lambda: len(draws.made) == 8)
    ahead.close()
    assert draws.made == [(seed, 1) for seed in range(8)]


def test_the_first_draws_of_a_new_row_wait_for_no_later_step_of_others(draws: Draws, ahead: NoiseAhead) -> None:
    rows = [sampled(seed) for seed in range(2)]
    ahead.prefetch(rows)
    wait_until(lambda: bool(draws.made))
    ahead.begin([row(5)])
    draws.open.set()
    wait_until(lambda: len(draws.made) == 2 * STEPS_AHEAD + 2)
    assert draws.made[:5] == [(0, 1), (1, 1), (5, 0), (5, 1), (0, 2)]


def test_what_a_step_waits_for_is_drawn_before_all_else(draws: Draws, ahead: NoiseAhead) -> None:
    rows, found = [sampled(seed) for seed in range(2)], []
    ahead.prefetch(rows)
    wait_until(lambda: bool(draws.made))
    thread = threading.Thread(target=lambda: found.extend(ahead.take([*rows, row(9)], [1, 3, 0])))
    thread.start()
    wait_until(lambda: len(ahead._queue) == 2 * STEPS_AHEAD - 1 + 2)
    draws.open.set()
    thread.join(20)
    assert draws.made[:4] == [(0, 1), (1, 3), (9, 0), (1, 1)]
    for array, (seed, draw) in zip(found, [(0, 1), (1, 3), (9, 0)], strict=True):
        np.testing.assert_array_equal(array, noise(seed, STAGE_BASE, draw, SHAPE))
    wait_until(lambda: len(draws.made) == 2 * STEPS_AHEAD + 1)
    assert len(set(draws.made)) == len(draws.made), "nothing is drawn twice"


def test_nothing_more_is_drawn_for_a_row_that_has_left(draws: Draws, ahead: NoiseAhead) -> None:
    stays, goes, waits = sampled(1), sampled(2), row(3)
    ahead.prefetch([stays, goes])
    ahead.begin([waits])
    wait_until(lambda: bool(draws.made))
    for one in (goes, waits):
        one.answered = True
        ahead.drop(one)
    ahead.prefetch([stays, goes])
    ahead.begin([waits])
    draws.open.set()
    wait_until(lambda: len(draws.made) == STEPS_AHEAD)
    assert not ahead._queue and draws.made == [(1, draw) for draw in range(1, STEPS_AHEAD + 1)]
    ahead.drop(stays)
    assert not ahead._rows and not ahead._arrived and sum(ahead._held.values()) == 0


@pytest.mark.parametrize("limit_bytes", [0, 3 * BYTES, 64 << 20])
def test_every_step_gets_the_draws_of_the_seed_contract_however_little_is_drawn_ahead(limit_bytes: int) -> None:
    ahead = NoiseAhead(STAGE_BASE, SHAPE, lambda shape: np.empty(shape, np.float32), threads=3, limit_bytes=limit_bytes)
    rows = [row(seed) for seed in range(4)]
    ahead.begin(rows)
    found = ahead.take(rows, [0] * 4)
    for one in rows:
        one.begun = True
    for step in range(19):
        found += ahead.take(rows, [step + 1] * 4)
        for one in rows:
            one.step += 1
        ahead.prefetch(rows if step % 3 else rows[:2])  # some pause
    for one in rows:
        ahead.drop(one)
    ahead.close()
    for place, array in enumerate(found):
        np.testing.assert_array_equal(array, noise(place % 4, STAGE_BASE, place // 4, SHAPE))


@pytest.mark.parametrize(("kind", "most"), [(HostEngine, 1), (StrictEngine, STEPS_AHEAD)])
def test_a_device_has_steps_drawn_ahead_and_a_cpu_which_needs_its_cores_the_next(
    kind: type[StrictEngine], most: int, draws: Draws
) -> None:
    draws.open.set()
    engine, inbox = kind(held=True), Inbox()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    scheduler.submit(request("a", seed=1, options=OPTIONS), inbox.receiver("a"))
    for steps in (1, 2):
        wait_until(lambda steps=steps: len(engine.calls) == steps)  # type: ignore[misc]
        engine.let(1)
    wait_until(lambda: len(engine.calls) == 3)
    wait_until(lambda: len(draws.made) >= 3 + most)
    scheduler.cancel("a")
    engine.let(100)
    assert inbox.error("a")
    assert scheduler.close()
    assert {draw for _, draw in draws.made} == set(range(3 + most)), "the step under way draws its own again"
