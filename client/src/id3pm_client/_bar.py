"""Progress in plain text on stderr."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 30
_EVERY_S = 10.0


class Bar:
    """A progress bar: redrawn in place on a terminal; elsewhere, in a log say, a line now and then.

        [###############---------------] 4/8 images, 2.1/s, 2 s left

    Args:
        total: What there is to do, in `unit`.
        unit: Word for it, in the plural.
        file: Where to write, or `None` for stderr.
    """

    def __init__(self, total: int, unit: str, file: TextIO | None = None) -> None:
        self._total = total
        self._unit = unit
        self._file = sys.stderr if file is None else file
        self._started = time.monotonic()
        self._written_at = self._started
        self._width = 0
        self._ended = False

    def update(self, done: int, total: int | None = None, unit: str | None = None) -> None:
        """Shows that `done` are done; `total` and `unit` replace those from the start."""
        self._total = self._total if total is None else total
        self._unit = self._unit if unit is None else unit
        self._ended = self._ended and done == self._total
        now = time.monotonic()
        if self._file.isatty():
            line = self._line(done, now)
            self._file.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        elif not self._ended and (done == self._total or now - self._written_at >= _EVERY_S):
            self._file.write(f"{self._line(done, now)}\n")
            self._ended = done == self._total
        else:
            return
        self._written_at = now
        self._file.flush()

    def close(self) -> None:
        """Leaves the line."""
        if self._width:
            self._file.write("\n")
            self._file.flush()
            self._width = 0

    def _line(self, done: int, now: float) -> str:
        filled = _WIDTH * done // max(self._total, 1)
        text = f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {done}/{self._total} {self._unit}"
        rate = done / max(now - self._started, 1e-9)
        if done and done < self._total:
            text += f", {rate:.3g}/s, {(self._total - done) / rate:.0f} s left"
        return text
