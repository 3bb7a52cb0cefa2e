"""Progress of a build: its phases and their seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class BuildProgress:
    """A spinner with the name of the running phase, and a line with the seconds of every phase that ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase: str | None = None
        self._start = 0.0
        self._status = console.status("")

    def __call__(self, phase: str) -> None:
        """Ends the running phase and starts the next."""
        self.end()
        self._phase, self._start = phase, time.perf_counter()
        self._status.update(phase)

    def end(self) -> None:
        """Ends the running phase and reports its seconds."""
        if self._phase is not None:
            self._console.print(f"  {self._phase}: {time.perf_counter() - self._start:.1f} s")
        self._phase = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shows the spinner; a phase that an error interrupts is not reported as done."""
        with self._status:
            yield
            self.end()
