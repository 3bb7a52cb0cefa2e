"""Progress of a run on stderr: a bar on a terminal, else a line for each shard; with rate and time left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from id3pm.synthetic.maker import Summary


class RunProgress:
    """Counts images and shards; may be called by several threads.

    Args:
        images: Planned in the shards that are to be made.
        shards: How many these are.
        console: Where it is shown.
    """

    def __init__(self, images: int, shards: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._images, self._shards = images, shards
        self._made = self._rejected = 0  # of shards that are done
        self._current = 0  # images that passed, also of shards in the making
        self._done = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(True))
        self._bar = Progress(*columns, TextColumn("{task.fields[rate]}"), console=self._console, transient=True)
        self._task = self._bar.add_task("images", total=images, rate="")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Shows the bar."""
        if not self._console.is_terminal:
            yield
            return
        with self._bar:
            yield

    def image(self, kept: bool) -> None:
        """An image has been made."""
        with self._lock:
            self._current += kept
            self._bar.update(self._task, completed=min(self._current, self._images), rate=f"{self._rate():.2f}/s")

    def shard(self, summary: Summary, planned: int) -> None:
        """A shard is done.

        Args:
            summary: Of it.
            planned: Its planned images.
        """
        with self._lock:
            self._done += 1
            self._made += summary.kept
            self._rejected += summary.rejected
            self._images -= planned - summary.kept if not summary.found else planned
            self._current = max(self._current, self._made)
            self._bar.update(self._task, total=self._images)
        self._console.print(self._line(summary), markup=False, soft_wrap=True)

    def _rate(self) -> float:
        return self._current / max(time.monotonic() - self._start, 1e-9)

    def _line(self, summary: Summary) -> str:
        head = f"shard {summary.number:05d} ({self._done} of {self._shards})"
        if summary.found:
            return f"{head}: made by another worker meanwhile"
        missing = f", {summary.missing} missing" if summary.missing else ""
        left = (self._images - self._made) / self._rate() if self._made else None
        wait = f", {duration(left)} left" if left is not None else ""
        return (
            f"{head}: {summary.kept} images, {summary.rejected} rejected{missing}, {duration(summary.seconds)}; "
            f"{self._rate():.2f} images/s{wait}"
        )


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 20 s`, `5 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
