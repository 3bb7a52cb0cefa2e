"""The worker thread: jobs in order, and detection of a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from waiting import wait_until

from id3pm.serving.models.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close(5.0)


def test_jobs_are_done_in_order_and_one_that_fails_stops_nobody(worker: Worker) -> None:
    seen: list[int] = []
    worker.put(lambda: seen.append(1))
    worker.put(lambda: 1 / 0)
    worker.put(lambda: seen.append(2))
    wait_until(lambda: worker.done == 3)
    assert seen == [1, 2] and worker.waiting == 0 and worker.age_s == 0.0


def test_a_job_that_hangs_ages_and_signs_of_life_make_it_young(worker: Worker) -> None:
    go = threading.Event()
    worker.put(go.wait)
    worker.put(lambda: None)
    time.sleep(0.3)
    assert worker.waiting == 2 and worker.age_s >= 0.3
    worker.beat()
    assert worker.age_s < 0.3
    go.set()
    wait_until(lambda: worker.waiting == 0)


def test_many_short_jobs_in_a_queue_are_no_long_one(worker: Worker) -> None:
    for _ in range(10):
        worker.put(lambda: time.sleep(0.1))
    oldest = 0.0
    while worker.waiting:
        oldest = max(oldest, worker.age_s)
        time.sleep(0.01)
    assert 0.05 < oldest < 0.6


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_ages() -> None:
    worker = Worker("doomed")
    worker.put(lambda: exit_thread())
    wait_until(lambda: not worker._thread.is_alive())
    worker.put(lambda: None)
    time.sleep(0.1)
    assert worker.age_s >= 0.1


def exit_thread() -> None:
    raise SystemExit
