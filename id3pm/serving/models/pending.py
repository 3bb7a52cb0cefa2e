"""A request of several images: its rows are sampled singly and answered together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from id3pm.errors import Id3pmError
from id3pm.sampling.request import Sample

Outcome = list[Sample] | Exception


class PendingRows:
    """Collects the samples of one request; calls back once, with all of them or with the first error.

    Args:
        rows: How many there are.
        on_outcome: Called once, from the thread that brings the last sample or the first error.
    """

    def __init__(self, rows: int, on_outcome: Callable[[Outcome], object]) -> None:
        self._rows = rows
        self._on_outcome = on_outcome
        self._lock = threading.Lock()
        self._samples: dict[int, Sample] = {}
        self._over = False
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether the request has ended with an error."""
        with self._lock:
            return self._failed

    def collector(self, row: int) -> Callable[[Sample | Id3pmError], None]:
        """What to give to the scheduler as `on_done` of a row."""

        def collect(outcome: Sample | Id3pmError) -> None:
            if isinstance(outcome, Exception):
                self.end(outcome)
                return
            with self._lock:
                self._samples[row] = outcome
                if self._over or len(self._samples) < self._rows:
                    return
                self._over = True
            self._on_outcome([self._samples[index] for index in range(self._rows)])

        return collect

    def end(self, error: Exception) -> None:
        """Ends the request with an error, unless it is over already."""
        with self._lock:
            if self._over:
                return
            self._over = self._failed = True
        self._on_outcome(error)
