"""The access log: one line of JSON for each request, with its id, so that it can be followed through Triton's log.

Neither photographs, ID vectors and images nor tokens are written.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import datetime
import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import TextIO

from id3pm.errors import ConfigError
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.protocol import limits

STDERR = "-"


@dataclasses.dataclass
class Entry:
    """Known facts about a request."""

    transport: str
    method: str
    peer: str
    caller: str = ""
    model: str = ""
    id: str = ""
    bytes_in: int = 0
    started: float = dataclasses.field(default_factory=time.monotonic)


_current: contextvars.ContextVar[Entry | None] = contextvars.ContextVar("entry", default=None)


def note(*, caller: str = "", model: str = "", id: str = "", bytes_in: int = 0) -> None:
    """Adds facts about the request that this task answers."""
    entry = _current.get()
    if entry is not None:
        entry.caller, entry.id = caller or entry.caller, id or entry.id
        entry.model = model[: limits.MAX_NAME] or entry.model  # a name that is not served may be as long as a body
        entry.bytes_in = bytes_in or entry.bytes_in


class _Raising(logging.Handler):
    """Raises errors instead of printing them on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """See `logging.Handler`."""
        error = sys.exc_info()[1]
        assert error is not None
        raise error


class _Stderr(_Raising, logging.StreamHandler[TextIO]):
    """Writes to stderr."""


class _File(_Raising, logging.handlers.WatchedFileHandler):
    """Writes to a file."""


class AccessLog:
    """Writes the access log.

    A line that cannot be written is dropped and counted: neither a full disk nor a missing folder fails the
    request.

    Args:
        file: A path, `STDERR`, or `None` for no log. A file that was moved away is opened anew.
        counters: Count dropped lines.

    Raises:
        ConfigError: The file cannot be opened.
    """

    def __init__(self, file: str | None = None, counters: Counters | None = None) -> None:
        self._handler: logging.Handler | None = None
        self._counters = Counters() if counters is None else counters
        if file == STDERR:
            self._handler = _Stderr()
        elif file is not None:
            try:
                self._handler = _File(Path(file), encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"--access-log {file}: {error.strerror}") from error

    def begin(self, transport: str, method: str, peer: str) -> Entry:
        """The entry of a request that this task answers from now on."""
        entry = Entry(transport, method, peer)
        _current.set(entry)
        return entry

    def end(self, entry: Entry, outcome: str) -> None:
        """Writes an entry, except for successful probes of health and metrics.

        Args:
            entry: See `begin`.
            outcome: Status of HTTP, or status code of gRPC.
        """
        if self._handler is None or (not entry.model and outcome in ("200", "OK")):
            return
        line = {
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
            "transport": entry.transport,
            "method": entry.method,
            "peer": entry.peer,
            "caller": entry.caller,
            "model": entry.model,
            "id": entry.id,
            "outcome": outcome,
            "seconds": round(time.monotonic() - entry.started, 4),
            "bytes_in": entry.bytes_in,
        }
        text = json.dumps({name: value for name, value in line.items() if value != ""})
        try:
            self._handler.handle(logging.LogRecord("id3pm.access", logging.INFO, "", 0, text, None, None))
        except (OSError, ValueError):  # also of a closed file
            self._counters.dropped_lines += 1

    def reopen(self) -> None:
        """Closes the file; the next line opens it anew."""
        if isinstance(self._handler, _File) and self._handler.stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._handler.flush()
            with contextlib.suppress(OSError, ValueError):
                self._handler.stream.close()
            self._handler.stream = None

    def close(self) -> None:
        """Closes the file."""
        if self._handler is not None:
            with contextlib.suppress(OSError, ValueError):  # what could not be written still cannot
                self._handler.close()
