"""Progress in plain text on stderr: one style for all commands and for `progress=True`."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

_WIDTH = 30
_EVERY_S = 10.0


class Bar:
    """A progress bar: redrawn in place on a terminal; elsewhere, such as in a log, a line from time to time.
    Thread-safe.

        [###############---------------] 4/8 images, 2.1/s, 2 s left; step 12/50 of denoiser_64

    Args:
        total: Amount of work in `unit`; 0 if there is nothing to count, and only `unit` is shown.
        unit: Word for it, in the plural.
        file: Where to write, or `None` for stderr.
    """

    def __init__(self, total: int, unit: str, file: TextIO | None = None) -> None:
        self._total = total
        self._unit = unit
        self._file = sys.stderr if file is None else file
        self._lock = threading.Lock()
        self._started = self._written_at = time.monotonic()
        self._done = self._first = self._width = 0
        self._note = self._noted = ""
        self._ended = False

    @property
    def age_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def update(self, done: int, total: int | None = None, unit: str | None = None) -> None:
        """Shows that `done` are done; `total` and `unit` replace those from the start."""
        with self._lock:
            if unit not in (None, self._unit):
                self._started, self._first = time.monotonic(), done
            self._total = self._total if total is None else total
            self._unit = self._unit if unit is None else unit
            self._done = done
            self._note = ""
            self._ended = self._ended and done == self._total
            over = bool(self._total) and done == self._total
            self._draw(urgent=over and not self._ended)
            self._ended = over

    def note(self, text: str) -> None:
        """Shows a text after the numbers: the reason for waiting, or the progress of the next one."""
        with self._lock:
            self._note = text
            self._draw(urgent=bool(text) and not self._noted)
            self._noted = text

    def clear(self) -> None:
        """Clears the line, so that other text can be written."""
        with self._lock:
            if self._width:
                self._file.write(f"\r{' ' * self._width}\r")
                self._file.flush()
                self._width = 0

    def close(self) -> None:
        """Leaves the line."""
        with self._lock:
            if self._width:
                self._file.write("\n")
                self._file.flush()
                self._width = 0

    def _draw(self, urgent: bool) -> None:
        now = time.monotonic()
        if self._file.isatty():
            line = self._line(now)
            self._file.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        elif urgent or (not self._ended and now - self._written_at >= _EVERY_S):
            self._file.write(f"{self._line(now)}\n")
        else:
            return
        self._written_at = now
        self._file.flush()

    def _line(self, now: float) -> str:
        note = f"; {self._note}" if self._note else ""
        if not self._total:
            return f"{self._unit}{note}"
        filled = _WIDTH * self._done // self._total
        text = f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {self._done}/{self._total} {self._unit}"
        rate = (self._done - self._first) / max(
            now - self._started, 1e-9
        )  # what came before the first look is not timed
        if rate > 0 and self._done < self._total:
            text += f", {rate:.3g}/s, {(self._total - self._done) / rate:.0f} s left"
        return text + note
