"""Liveness: a working thread is distinguished from a hung one."""

from __future__ import annotations

import threading
import time

from id3pm.serving.models.worker import Liveness


def test_who_has_never_begun_or_has_ended_gets_older() -> None:
    liveness = Liveness()
    time.sleep(0.05)
    assert liveness.age_s >= 0.05
    thread = threading.Thread(target=liveness.beat)
    thread.start()
    thread.join()
    time.sleep(0.05)
    assert 0.05 <= liveness.age_s < 1.0


def test_who_looks_often_takes_nothing_for_work() -> None:
    liveness, end, go = Liveness(), time.monotonic() + 0.3, threading.Event()

    def wait() -> None:
        liveness.beat()
        go.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    while time.monotonic() < end:
        age_s = liveness.age_s
    go.set()
    thread.join()
    assert age_s > 0.2
