"""Admission to the gateway: limits on bytes and requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import RefusedError

T = TypeVar("T")
Grow = Callable[[int], None]
"""Counts so many bytes of a body more."""
_WIDE = 4  # bytes per character in a Python string that has at least one wide character


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
        self._max_body = max_body
        self._max_bytes = max(max_bytes, 2 * max_body)  # a gRPC message is in memory twice
        self._most_decoded = max(max_bytes, 3 * max_body)  # one body can always be read
        self._work = self._queries = 0
        self._parser = asyncio.Lock()
        self._arriving = _Places(max(max_bytes // max_body, 1))
        self._arriving_unknown = _Places(4)

    @contextlib.contextmanager
    def body(self) -> Iterator[Grow]:
        """Room for one body while it is open; gives what counts the bytes that arrive.

        That raises `RefusedError` where all bodies together are too large.
        """
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            self.grow(size)
            held += size

        try:
            yield grow
        finally:
            self.held -= held

    @contextlib.contextmanager
    def request(self, *, work: bool) -> Iterator[None]:
        """Counts a request while it is answered: one for work, or a query.

        Raises:
            RefusedError: There are too many.
        """
        if (self._work if work else self._queries) >= (limits.MAX_WORK if work else limits.MAX_QUERIES):
            number = f"{self._work} requests" if work else f"{self._queries} queries"
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
            known: Whether its sender has a valid token, if one is needed; others have only a few places.

        Raises:
            RefusedError: It takes too long: to get a place, or to arrive while others wait for one.
        """
        async with (self._arriving if known else self._arriving_unknown).one():
            yield

    @property
    def work(self) -> int:
        """Requests for work that have not been answered completely."""
        return self._work

    async def parsed(self, body: bytes, parse: Callable[[], T], text: int = 0) -> T:
        """The result of `parse` for a body: large ones one at a time, beside the event loop, within the limit of bytes.

        Args:
            body: The body, which is counted.
            parse: Reads it.
            text: Number of its first bytes that are JSON.

        Raises:
            RefusedError: As `parse`; it is too large as text, or there is no room for what it takes while it is read.
        """
        if len(body) <= limits.MAX_SMALL_BODY:
            return parse()
        decoded = decoded_size(body[:text] if text < len(body) else body)
        if decoded > max(self._max_body, _WIDE * limits.MAX_SMALL_BODY):
            raise RefusedError(
                "too_large",
                f"the JSON takes {decoded} bytes as text, for it has characters beyond ASCII, and each of its {text} "
                f"characters takes {_WIDE}: at most {self._max_body} are allowed; use ASCII, or send tensors as binary",
            )
        cost = 2 * decoded + len(body) - text  # its longest string is in memory twice, as are binary tensors
        try:
            await asyncio.wait_for(self._parser.acquire(), limits.PARSE_S)
        except asyncio.TimeoutError as error:  # noqa: UP041 - another class before Python 3.11
            raise full("too many large bodies wait to be read") from error
        try:
            self.grow(cost, self._most_decoded)
            work = asyncio.ensure_future(asyncio.to_thread(parse))
            try:
                return await asyncio.shield(work)
            except RefusedError as refusal:
                raise refusal.with_traceback(None) from None  # the frames of a traceback would keep the body
            finally:
                if not work.done():  # the caller has disconnected: the work that it started still takes its room
                    await asyncio.wait([work])
                del work  # it keeps the error, and the error this frame: a cycle that would keep the body until a gc
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
            self._queries += change


class _Places:
    """Places for messages that are on their way; each message takes one."""

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)
        self._since: dict[asyncio.Task[Any], float] = {}  # holders of a place, the longest first
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
        """Waits for a place; meanwhile the longest holders must leave, one for each waiting message."""
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


def decoded_size(text: bytes) -> int:
    """Bytes of a JSON text once it is decoded: one emoji, or one escape that may be one, makes four of each."""
    return len(text) * (1 if text.isascii() and b"\\u" not in text else _WIDE)


def full(what: str) -> RefusedError:
    """The error for excess load."""
    return RefusedError("too_many_requests", f"{what}: retry after 1 s", retry_after_s=1.0)
