"""A thread that works is told from one that waits, whatever it is busy with."""

from __future__ import annotations

import threading
import time

from id3pm.serving.models.liveness import Pulse


def test_who_has_never_begun_or_has_ended_gets_older() -> None:
    pulse = Pulse()
    time.sleep(0.05)
    assert pulse.age_s >= 0.05
    thread = threading.Thread(target=pulse.beat)
    thread.start()
    thread.join()
    time.sleep(0.05)
    assert 0.05 <= pulse.age_s < 1.0


def test_who_looks_often_takes_nothing_for_work() -> None:
    pulse, end, go = Pulse(), time.monotonic() + 0.3, threading.Event()

    def wait() -> None:
        pulse.beat()
        go.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    while time.monotonic() < end:
        age_s = pulse.age_s
    go.set()
    thread.join()
    assert age_s > 0.2
