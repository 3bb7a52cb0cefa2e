"""A worker thread whose liveness can be observed."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)
Job = Callable[[], object]


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
        """Adds a job. What it raises is logged, and the next one is done."""
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
        """Does what there is, then ends the thread; false where that takes longer than `timeout_s` seconds."""
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
