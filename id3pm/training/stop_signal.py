"""A clean stop of a run by SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """SIGTERM and SIGINT ask for a stop at the next step instead of killing the run."""

    def __enter__(self) -> Callable[[], bool]:
        self._asked = False
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return lambda: self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
