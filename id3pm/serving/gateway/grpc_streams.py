"""Open gRPC streams: limits by caller, and the end of idle ones."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from id3pm.serving.gateway.admission import full
from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import RefusedError


class Stream:
    """One open stream.

    Attributes:
        owner: The caller's name, or its address.
        ended: Reason why it must end, or `None`.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.ended: RefusedError | None = None
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._unanswered = 0
        self._since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._rest()

    @property
    def idle_s(self) -> float:
        """Seconds since the last answer; 0 while a request waits for its own."""
        return 0.0 if self._unanswered else self._loop.time() - self._since

    def asks(self) -> None:
        """A request has come."""
        self._unanswered += 1
        self.close()

    def answered(self) -> None:
        """An answer was taken."""
        self._unanswered -= 1
        if not self._unanswered:
            self._rest()

    def end(self, why: RefusedError) -> None:
        """Ends it from outside."""
        if self.ended is None and self._task is not None:
            self.ended = why
            self._task.cancel()

    def close(self) -> None:
        """Ends its clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> None:
        self._since = self._loop.time()
        why = RefusedError("request_timeout", f"nothing was asked on this stream for {limits.STREAM_IDLE_S:g} s")
        self._timer = self._loop.call_later(limits.STREAM_IDLE_S, self.end, why)


class Streams:
    """Counts the open streams; an idle one is ended for a new one."""

    def __init__(self) -> None:
        self._open: set[Stream] = set()

    @property
    def at_work(self) -> bool:
        """Whether any waits for an answer, or for its caller to take one."""
        return any(stream.idle_s == 0.0 for stream in list(self._open))

    @contextlib.contextmanager
    def open(self, owner: str) -> Iterator[Stream]:
        """A stream while it is open.

        Args:
            owner: The caller's name, or its address.

        Raises:
            RefusedError: There are too many, and all are busy; or this one was ended to make room.
        """
        mine = [stream for stream in self._open if stream.owner == owner]
        if len(mine) >= limits.MAX_STREAMS_OF_ONE:
            self._make_room(mine)
        elif len(self._open) >= limits.MAX_STREAMS:
            self._make_room(list(self._open))
        stream = Stream(owner)
        self._open.add(stream)
        try:
            yield stream
        except asyncio.CancelledError:
            if stream.ended is None:
                raise
            _uncancel()
            raise stream.ended from None
        finally:
            stream.close()
            self._open.discard(stream)

    def _make_room(self, among: list[Stream]) -> None:
        owned = collections.Counter(stream.owner for stream in self._open)
        idle = [stream for stream in among if stream.idle_s > limits.SOON_S and stream.ended is None]
        if not idle:
            raise full(f"{len(among)} streams are open, as many as are allowed")
        longest = max(idle, key=lambda stream: (owned[stream.owner], stream.idle_s))
        longest.end(full(f"nothing was asked on this stream for {longest.idle_s:.0f} s, and others wait"))
        self._open.discard(longest)


def _uncancel() -> None:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    if task is not None and sys.version_info >= (3, 11):
        task.uncancel()
