"""The compute lock: one step at a time, the most urgent first, and every wait has a limit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_engine import DIFFUSION, PLAIN, FakeEngine, Inbox, KnownCost, request
from waiting import wait_until

from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.sampling import compute_lock as lock_module
from id3pm.sampling.compute_lock import ALIKE, Claim, NoComputeLock, SharedComputeLock
from id3pm.sampling.policy import best
from id3pm.sampling.scheduler import StepScheduler


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[SharedComputeLock, SharedComputeLock]]:
    both = SharedComputeLock(tmp_path / "compute_lock", 0, 2), SharedComputeLock(tmp_path / "compute_lock", 1, 2)
    yield both
    for one in both:
        one.close()


def in_thread(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_one_waits_while_the_other_computes(pair: tuple[SharedComputeLock, SharedComputeLock]) -> None:
    first, second = pair
    first.acquire(lambda: Claim(5.0, 1.0))
    waiter = in_thread(lambda: second.acquire(lambda: Claim(9.0, 1.0)))
    waiter.join(0.1)
    assert waiter.is_alive()
    first.acquire(lambda: Claim(5.0, 1.0))  # less urgent work waits: the lock is kept
    assert waiter.is_alive()
    first.release()
    waiter.join(1.0)
    assert not waiter.is_alive()


def test_a_waiting_stage_wakes_as_soon_as_the_lock_is_free(
    pair: tuple[SharedComputeLock, SharedComputeLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "POLL_S", 30.0)
    monkeypatch.setattr(lock_module, "TIMEOUT_S", 60.0)
    first, second = pair
    first.acquire(lambda: Claim(5.0, 1.0))
    waiter = in_thread(lambda: second.acquire(lambda: Claim(9.0, 1.0)))
    wait_until(lambda: first._best_other().urgency == 9.0)
    first.release()
    waiter.join(2.0)
    assert not waiter.is_alive()


def test_a_stage_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    SharedComputeLock(tmp_path / "compute_lock", 0, 2).close()
    (tmp_path / "others.0").mkdir()
    with pytest.raises(OSError):
        SharedComputeLock(tmp_path / "others", 0, 2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_lock_goes_to_more_urgent_work_and_comes_back(pair: tuple[SharedComputeLock, SharedComputeLock]) -> None:
    first, second = pair
    order: list[str] = []

    def urgent() -> None:
        second.acquire(lambda: Claim(1.0, 1.0))
        order.append("urgent")
        second.release()

    first.acquire(lambda: Claim(5.0, 1.0))
    waiter = in_thread(urgent)
    wait_until(lambda: first._best_other().urgency == 1.0)
    first.acquire(lambda: Claim(5.0, 1.0))  # releases the lock, and acquires it again
    order.append("patient")
    waiter.join(1.0)
    assert order == ["urgent", "patient"]


@pytest.mark.parametrize(("left_s", "shared"), [(0.5, True), (ALIKE, True), (ALIKE + 0.1, False)])
def test_the_lock_is_yielded_early_to_rows_that_need_no_much_longer(
    pair: tuple[SharedComputeLock, SharedComputeLock], left_s: float, shared: bool
) -> None:
    first, second = pair
    first.yield_rest()  # it does not hold the lock: nothing to yield
    first.acquire(lambda: Claim(5.0, 1.0))
    first.yield_rest()
    assert not second._lock(), "no stage waits for it"
    waiter = in_thread(lambda: second.acquire(lambda: Claim(9.0, left_s)))
    wait_until(lambda: first._best_other().urgency == 9.0)
    first.yield_rest()
    waiter.join(0.2)
    assert waiter.is_alive() != shared
    first.release()
    waiter.join(1.0)
    second.release()


def test_urgency_that_grows_while_waiting_counts(pair: tuple[SharedComputeLock, SharedComputeLock]) -> None:
    first, second = pair
    urgency = 9.0
    first.acquire(lambda: Claim(5.0, 1.0))
    waiter = in_thread(lambda: second.acquire(lambda: Claim(urgency, 1.0)))
    wait_until(lambda: first._best_other().urgency == 9.0)
    urgency = 1.0
    wait_until(lambda: first._best_other().urgency == 1.0)
    second_had_it = threading.Thread(target=lambda: (waiter.join(1.0), second.release()), daemon=True)
    second_had_it.start()
    first.acquire(lambda: Claim(5.0, 1.0))
    assert not waiter.is_alive()


def test_a_hung_stage_does_not_hold_up_the_other(
    pair: tuple[SharedComputeLock, SharedComputeLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "TIMEOUT_S", 0.2)
    first, second = pair
    first.acquire(lambda: Claim(5.0, 1.0))  # and never comes back
    start = time.monotonic()
    second.acquire(lambda: Claim(9.0, 1.0))
    assert 0.2 <= time.monotonic() - start < 1.0


def test_the_kernel_releases_the_lock_of_a_dead_process(tmp_path: Path) -> None:
    file = tmp_path / "compute_lock"
    code = (
        "import time; from pathlib import Path; from id3pm.sampling.compute_lock import Claim, SharedComputeLock\n"
        f"SharedComputeLock(Path({str(file)!r}), 0, 2).acquire(lambda: Claim(-1.0, 1.0)); print('mine', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        survivor = SharedComputeLock(file, 1, 2)
        assert not survivor._lock()
    finally:
        process.kill()
        process.wait(10.0)
        process.stdout.close()  # type: ignore[union-attr]
    start = time.monotonic()
    survivor.acquire(lambda: Claim(9.0, 1.0))
    assert time.monotonic() - start < lock_module.TIMEOUT_S / 2
    survivor.close()


def test_short_requests_overtake_the_long_ones_of_the_other_stage(tmp_path: Path) -> None:
    inbox, engines = Inbox(), (FakeEngine(), FakeEngine())
    engines[0].delay_s = engines[1].delay_s = 0.005
    pair = SharedComputeLock(tmp_path / "compute_lock", 0, 2), SharedComputeLock(tmp_path / "compute_lock", 1, 2)
    schedulers = [
        StepScheduler(engine, DIFFUSION, stage, cost=KnownCost(), compute_lock=one)
        for engine, stage, one in zip(engines, (STAGE_BASE, STAGE_SR), pair, strict=True)
    ]

    schedulers[0].submit(request("long", options=dataclasses.replace(PLAIN, steps=100)), inbox.receiver("long"))
    wait_until(lambda: len(engines[0].calls) > 3)
    before = len(engines[0].calls)
    schedulers[1].submit(request("short", options=dataclasses.replace(PLAIN, steps=20)), inbox.receiver("short"))
    inbox.sample("short")
    assert len(engines[0].calls) - before <= 5  # at most the step that was running, and a slow poll or two
    inbox.sample("long")
    assert all(scheduler.close() for scheduler in schedulers)


def test_a_scheduler_yields_the_lock_as_soon_as_the_engine_is_done() -> None:
    engine, inbox, seen = FakeEngine(), Inbox(), []

    class Watched(NoComputeLock):
        def acquire(self, claim: Callable[[], Claim]) -> None:
            seen.append((claim().left_s, len(engine.calls)))

        def yield_rest(self) -> None:
            seen.append(("shared", len(engine.calls)))

    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, cost=KnownCost(), compute_lock=Watched())
    before = len(engine.calls)
    scheduler.submit(request("three", options=dataclasses.replace(PLAIN, steps=3)), inbox.receiver("three"))
    inbox.sample("three")
    assert scheduler.close()
    step_s = KnownCost().step_s(1)
    steps = [
        [(pytest.approx(left * step_s), before + done), ("shared", before + done + 1)]
        for done, left in enumerate((3, 2, 1))
    ]
    assert seen == [event for step in steps for event in step]


def test_without_rows_nothing_is_best() -> None:
    assert best([], 0.0) is None
