"""Threads whose liveness can be observed: a worker with jobs, and one in long calls of a library."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)
Job = Callable[[], object]
LEAST_S = 0.005
"""Processor time that counts as work: more than a thread uses to read a clock now and then."""
LONGEST_PART_S = 20.0
"""Most processor time of one part of the work: a longer part counts as an endless loop."""


class Worker:
    """Jobs in order of arrival, in a thread of its own.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self.done = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards `done` and the next two
        self._waiting = 0
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Adds a job. Its exceptions are logged, and the next job runs."""
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting += 1
        self._jobs.put(job)

    @property
    def waiting(self) -> int:
        """Jobs that are not done, with the current one."""
        with self._lock:
            return self._waiting

    @property
    def age_s(self) -> float:
        """Seconds since the current job could have begun; 0 where there is none."""
        with self._lock:
            return time.monotonic() - self._since if self._waiting else 0.0

    def beat(self) -> None:
        """A sign of life from within a job of several parts."""
        with self._lock:
            self._since = time.monotonic()

    def close(self, timeout_s: float = 30.0) -> bool:
        """Finishes all jobs, then ends the thread; false if that takes longer than `timeout_s` seconds."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                logger.exception("a job failed")
            with self._lock:
                self._waiting -= 1
                self.done += 1
                self._since = time.monotonic()


class Liveness:
    """Liveness of one thread: its own signals, and the processor time that it gets.

    A large photograph is decoded within a few calls. Their duration depends on other load, so it
    does not show whether the thread hangs. But a working thread gets processor time, and a hung one gets none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follow
        self._clock: int | None = None
        self._began = self._seen = 0.0  # of that clock: the part's begin, and when work was seen last
        self._since = time.monotonic()

    def beat(self) -> None:
        """Called by the thread that works: a part of its work begins."""
        clock = time.pthread_getcpuclockid(threading.get_ident())
        with self._lock:
            self._clock = clock
            self._began = self._seen = time.clock_gettime(clock)
            self._since = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last sign of life; any thread may ask."""
        with self._lock:
            if (used := self._used()) is not None and used - self._seen >= LEAST_S:
                self._seen = used
                if used - self._began < LONGEST_PART_S:
                    self._since = time.monotonic()
            return time.monotonic() - self._since

    def _used(self) -> float | None:
        """Seconds of a processor that the thread has got; `None` where there is no such thread any more."""
        try:
            return None if self._clock is None else time.clock_gettime(self._clock)
        except OSError:
            return None
