"""Admission to the gateway: bytes and requests that are taken at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import TOO_MANY, RefusedError

T = TypeVar("T")
_WIDE = re.compile(rb"[\xf0-\xf4]|\\u[dD][89a-bA-B]")  # characters beyond 2^16, as UTF-8 or as two escapes


class Admission:
    """Counts requests and the bytes of their bodies from their arrival to their answer, over all ports.

    Attributes:
        held: Bytes of bodies now.

    Args:
        max_bytes: Of all bodies together; with what parsing makes of one, at least three times `max_body`.
        max_body: Of one body. A gRPC message is counted when it is there: so many arrive at a time that they, too, are
            within `max_bytes`.
    """

    def __init__(self, max_bytes: int, max_body: int) -> None:
        self.held = 0
        self._max_bytes = max(max_bytes, max_body)
        self._most_decoded = max(max_bytes, 3 * max_body)  # a body of ASCII can always be read: see `decoded_size`
        self._work = self._questions = 0
        self._parser = asyncio.Lock()
        self._arriving = _Places(self._max_bytes // max_body)
        self._arriving_unknown = _Places(4)

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
        if (self._work if work else self._questions) >= (limits.MAX_WORK if work else limits.MAX_QUESTIONS):
            number = f"{self._work} requests" if work else f"{self._questions} questions"
            raise full(f"{number} are in flight, as many as are allowed")
        self._count(work, 1)
        try:
            yield
        finally:
            self._count(work, -1)

    @contextlib.asynccontextmanager
    async def arrival(self, *, known: bool) -> AsyncIterator[None]:
        """Waits until one more gRPC message may arrive.

        Args:
            known: Whether its sender has shown a token, where one is needed; others have few places of their own.

        Raises:
            RefusedError: It takes too long: to get a place, or to arrive while others wait for one.
        """
        async with (self._arriving if known else self._arriving_unknown).one():
            yield

    @property
    def work(self) -> int:
        """Requests for work whose answers are not written yet."""
        return self._work

    async def parsed(self, body: bytes, parse: Callable[[], T], cost_of: Callable[[bytes], int]) -> T:
        """What `parse` makes of a body: large ones one at a time, beside the event loop, within the limit of bytes.

        Args:
            body: What was sent, and is counted.
            parse: Reads it.
            cost_of: Bytes that this takes beside the body, while it lasts.

        Raises:
            RefusedError: As `parse`; there is no room for what it takes while it lasts, or too many wait before it.
        """
        if len(body) <= limits.MAX_SMALL_BODY:
            return parse()
        cost = cost_of(body)
        if len(body) + cost > self._most_decoded:
            raise RefusedError(
                "RESOURCE_EXHAUSTED",
                f"the body of {len(body)} bytes takes {cost} more while it is read: {self._most_decoded} are allowed "
                "for all bodies; text beyond ASCII takes most",
            )
        try:
            await asyncio.wait_for(self._parser.acquire(), limits.PARSE_S)
        except asyncio.TimeoutError as error:  # noqa: UP041 - another class before Python 3.11
            raise full("too many large bodies wait to be read") from error
        try:
            self.grow(cost, self._most_decoded)
            work = asyncio.ensure_future(asyncio.to_thread(parse))
            try:
                return await asyncio.shield(work)
            finally:
                if not work.done():  # the caller has gone: what it started still takes its room
                    await asyncio.wait([work])
                self.held -= cost
        finally:
            self._parser.release()

    def grow(self, size: int, most: int | None = None) -> None:
        """Raises `RefusedError` where `size` bytes more are too many; `most` is the limit where it is another."""
        most = self._max_bytes if most is None else most
        if self.held + size > most:
            raise full(f"the bodies of all requests have {self.held} bytes, and {most} are allowed")
        self.held += size

    def _count(self, work: bool, change: int) -> None:
        if work:
            self._work += change
        else:
            self._questions += change


class _Places:
    """So many messages may be on their way at a time."""

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)
        self._since: dict[asyncio.Task[Any], float] = {}  # of those who have a place, the longest first
        self._sent_away: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        await self._take()
        task = asyncio.current_task()
        assert task is not None
        self._since[task] = asyncio.get_running_loop().time()
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._sent_away:
                raise
            if sys.version_info >= (3, 11):
                task.uncancel()
            raise full(f"the message was not there after {limits.SOON_S:g} s, and others wait") from None
        finally:
            del self._since[task]
            self._sent_away.discard(task)
            self._free.release()

    async def _take(self) -> None:
        """Waits for a place; meanwhile those who have had one for long must leave, one for each who waits."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + limits.TURN_S
        while True:
            with contextlib.suppress(asyncio.TimeoutError):  # noqa: UP041 - another class before Python 3.11
                await asyncio.wait_for(self._free.acquire(), limits.SOON_S / 4 if self._free.locked() else None)
                return
            if clock() > give_up:
                raise full("too many messages are on their way")
            for task, since in self._since.items():
                if task not in self._sent_away:
                    if clock() - since > limits.SOON_S:
                        self._sent_away.add(task)
                        task.cancel()
                    break


class Body:
    """The part of one request."""

    def __init__(self, admission: Admission) -> None:
        self.size = 0
        self._admission = admission

    def grow(self, size: int) -> None:
        """So many bytes more have arrived.

        Raises:
            RefusedError: All bodies together are too large.
        """
        self._admission.grow(size)
        self.size += size


def decoded_size(body: bytes) -> int:
    """Most bytes that JSON takes while it is parsed, beside itself: as text, and its longest string once more.

    Python keeps text in 1, 2 or 4 bytes a character, as its widest one needs: one emoji makes four of each.
    """
    width = 1
    if b"\\u" in body or not body.isascii():
        width = 4 if _WIDE.search(body) else 2
    return 2 * width * len(body)


def full(what: str) -> RefusedError:
    """The refusal of what is too much at once."""
    return RefusedError("RESOURCE_EXHAUSTED", f"{what}: retry after 1 s", TOO_MANY)
