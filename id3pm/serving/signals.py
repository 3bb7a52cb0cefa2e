"""The signals that end or reload a service in the foreground."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

_STDIN = 0
_ECHO_S = 1.0  # `timeout` and some supervisors send one stop twice: to the process and to its group


class TooEarlyError(KeyboardInterrupt):
    """A signal before there is work to finish; what catches errors lets it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """Received signals: plain fields, because a handler must not take locks."""

    def __init__(self) -> None:
        self.ready = self.stop = self.forced = self.reload = False
        self._first = 0.0
        self._terminal = _is_terminal()

    def handle(self, abort: Callable[[], None]) -> None:
        """Handles them from now on: SIGTERM and SIGINT stop, SIGHUP reloads, SIGUSR1 and SIGUSR2 do nothing."""

        def on_signal(number: int, frame: object) -> None:
            if not self.stop:
                self.stop, self._first = True, time.monotonic()
                if not self.ready:
                    raise TooEarlyError(number)
            elif time.monotonic() - self._first > _ECHO_S:
                self.forced = True
                abort()

        def on_hangup(number: int, frame: object) -> None:
            if self._terminal and not _is_terminal():  # its terminal window was closed
                on_signal(number, frame)
            else:
                self.reload = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        signal.signal(signal.SIGHUP, on_hangup)
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # not SIG_IGN, which the server would inherit
            signal.signal(number, lambda number, frame: None)


def _is_terminal() -> bool:
    """Whether a terminal is open at the other end of stdin; false once it has hung up."""
    try:
        return os.isatty(_STDIN)
    except OSError:
        return False
