"""Liveness of a thread, also during one long call of a library."""

from __future__ import annotations

import threading
import time

LEAST_S = 0.005
"""Time of a processor that is taken for work: more than a thread needs for looking at a clock now and then."""
LONGEST_PART_S = 20.0
"""Time of a processor that one part of the work may take: what takes longer is taken to turn in circles."""


class Liveness:
    """Signs of life of one thread: those it gives itself, and the time of a processor that it gets.

    A large photograph is decoded within a few calls. How long they last depends on who else wants the processors, so
    their duration alone says nothing; but who works gets time of a processor, and who hangs gets none.
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
