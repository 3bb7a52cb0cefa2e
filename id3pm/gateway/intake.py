"""How much is taken in at a time, so that a flood is refused and not kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from id3pm.gateway.refusal import TOO_MANY, RefusedError

MAX_WORK = 512  # more than both stages keep waiting
MAX_QUESTIONS = 1024
MAX_STREAMS = 32  # each may hold one message that is on its way
TURN_S = 5.0


class Intake:
    """Counts requests and the bytes of their bodies from their arrival to their answer, over all ports.

    Attributes:
        held: Bytes of bodies now.

    Args:
        max_bytes: Of all bodies together.
        max_body: Of one body. A gRPC message is counted when it is there: so many arrive at a time that they, too, are
            within `max_bytes`.
    """

    def __init__(self, max_bytes: int, max_body: int) -> None:
        self.held = 0
        self._max_bytes = max(max_bytes, max_body)
        self._work = self._questions = self._streams = 0
        self._arriving = asyncio.Semaphore(self._max_bytes // max_body)
        self._arriving_unknown = asyncio.Semaphore(4)

    @contextlib.contextmanager
    def body(self) -> Iterator[Body]:
        """Room for one body, from nothing to as much as is allowed."""
        body = Body(self)
        try:
            yield body
        finally:
            self.held -= body.size

    @contextlib.contextmanager
    def request(self, *, work: bool) -> Iterator[None]:
        """Counts a request while it is answered: one for work, or a question about work.

        Raises:
            RefusedError: There are too many.
        """
        if (self._work if work else self._questions) >= (MAX_WORK if work else MAX_QUESTIONS):
            number = f"{self._work} requests" if work else f"{self._questions} questions"
            raise full(f"{number} are in flight, as many as are allowed")
        self._count(work, 1)
        try:
            yield
        finally:
            self._count(work, -1)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Counts a gRPC stream while it is open.

        Raises:
            RefusedError: There are too many.
        """
        if self._streams >= MAX_STREAMS:
            raise full(f"{self._streams} streams are open, as many as are allowed")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    @contextlib.asynccontextmanager
    async def arrival(self, *, known: bool) -> AsyncIterator[None]:
        """Waits until one more gRPC message may arrive.

        Args:
            known: Whether its sender has shown a token, where one is needed; others have few places of their own.

        Raises:
            RefusedError: It takes too long.
        """
        places = self._arriving if known else self._arriving_unknown
        try:
            await asyncio.wait_for(places.acquire(), TURN_S)
        except asyncio.TimeoutError as error:  # noqa: UP041 - another class before Python 3.11
            raise full("too many messages are on their way") from error
        try:
            yield
        finally:
            places.release()

    def grow(self, size: int) -> None:
        """Raises `RefusedError` where `size` bytes more are too many."""
        if self.held + size > self._max_bytes:
            raise full(f"the bodies of all requests have {self.held} bytes, and {self._max_bytes} are allowed")
        self.held += size

    def _count(self, work: bool, change: int) -> None:
        if work:
            self._work += change
        else:
            self._questions += change


class Body:
    """The part of one request."""

    def __init__(self, intake: Intake) -> None:
        self.size = 0
        self._intake = intake

    def grow(self, size: int) -> None:
        """So many bytes more have arrived.

        Raises:
            RefusedError: All bodies together are too large.
        """
        self._intake.grow(size)
        self.size += size


def full(what: str) -> RefusedError:
    """The refusal of what is too much at once."""
    return RefusedError("RESOURCE_EXHAUSTED", f"{what}: retry after 1 s", TOO_MANY)
