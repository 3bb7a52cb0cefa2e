"""Parts of the asyncio client that differ from the blocking one: event loop, queue, tasks, channels."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from id3pm_client import _base as base
from id3pm_client._connection import Connection
from id3pm_client._errors import ClientError, ClosedClientError, DeadlineExceededError
from id3pm_client._grpc import AsyncGrpcTransport
from id3pm_client._request import Call
from id3pm_client._server_pool import Server
from id3pm_client._slots import Slots
from id3pm_client._transport import GRACE_S, AsyncTransport, Outcome

T = TypeVar("T")
_LOOKUP_POLL_S = 0.01  # between checks whether the first lookup of a name is over


class AsyncConnections(base.BaseClient[AsyncTransport]):
    """The connections of a client, in one event loop at a time."""

    def _open(self, connection: Connection) -> AsyncTransport:
        return AsyncGrpcTransport(connection)

    def _prepare(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # the first call of a coroutine chooses it
        self._slots: Slots

    def _begin(self) -> None:
        """Before a coroutine does anything. After the end of its event loop, a client goes on in a new one.

        Raises:
            ClosedClientError: This client has been closed.
            ClientError: It is used in another event loop.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise ClientError(
                "this AsyncClient belongs to another event loop, which has not been closed: "
                "make one AsyncClient for each event loop, or use Client, which any thread may share"
            )
        self._loop = loop
        self._slots = Slots(self.max_in_flight)
        self._waiting_calls.clear()
        self._in_flight.clear()
        for server in self._server_pool.take_all():
            server.in_flight = 0

    async def _enter(self) -> None:
        """Before a call sends anything: as `_begin`; names have been looked up once, or it has taken too long.

        Raises:
            ClientError: See `_begin`.
        """
        self._begin()
        self._discovery.begin()
        until = time.monotonic() + base.CONTROL_TIMEOUT_S
        while not self._discovery.first_lookup.is_set() and time.monotonic() < until:
            await asyncio.sleep(_LOOKUP_POLL_S)
        await _all((server.transport.close() for server in self._server_pool.take_unused()), base.CANCEL_TIMEOUT_S)

    def _begin_close(self) -> None:
        if not self._closed:
            self._begin()

    async def _close_transports(self) -> None:
        await _all((server.transport.close() for server in self._server_pool.take_all()), base.CANCEL_TIMEOUT_S)

    async def _is_ready(self, server: Server[AsyncTransport], model: str | None) -> bool:
        return await _control(server.transport.is_ready(model, base.CONTROL_TIMEOUT_S))

    async def _server_metadata(self, server: Server[AsyncTransport]) -> tuple[str, str]:
        return await _control(server.transport.server_metadata(base.CONTROL_TIMEOUT_S))


class AsyncQueue(Generic[T]):
    """A queue within one event loop."""

    def __init__(self) -> None:
        self._items: collections.deque[T] = collections.deque()
        self._arrival: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Adds an item."""
        self._items.append(item)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def get(self, until: float) -> T | None:
        """The oldest item; `None` where there is none until this monotonic time."""
        while not self._items:
            left_s = until - time.monotonic()
            if left_s <= 0.0:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._arrival], timeout=left_s)  # unlike `wait_for`, it never swallows a cancellation
        return self._items.popleft()


def submit(
    transport: AsyncTransport, call: Call, timeout_s: float, on_done: Callable[[Outcome | BaseException], None]
) -> Callable[[], object]:
    """Sends a call in a task of its own; returns what cancels it.

    A transport that is closed cancels its calls, as if the task that waits were cancelled. In a task of its own, the
    one can be told from the other.
    """
    task = asyncio.ensure_future(transport.infer(call, timeout_s))
    task.add_done_callback(lambda task: on_done(_outcome(task)))
    return task.cancel


@contextlib.asynccontextmanager
async def repeating(work: Callable[[], Awaitable[None]], every_s: float, most_s: float) -> AsyncIterator[None]:
    """Does `work`, which takes up to `most_s` seconds, again and again meanwhile."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(ClientError):
                await work()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        await _end([task], most_s)


async def _control(call: Awaitable[T]) -> T:
    """Awaits one call to a transport; see `_all`."""
    (outcome,) = await _all([call], base.CONTROL_TIMEOUT_S)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _all(calls: Iterable[Awaitable[T]], timeout_s: float) -> list[T | BaseException]:
    """Awaits calls to transports at once; one that does not keep its time limit counts as `DeadlineExceededError`."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    if not tasks:
        return []
    late: set[asyncio.Task[T]] = set()
    try:
        _, late = await asyncio.wait(tasks, timeout=timeout_s + GRACE_S)
    finally:
        await _end([task for task in tasks if not task.done()], base.CANCEL_TIMEOUT_S)
    return [DeadlineExceededError(base.NO_OUTCOME) if task in late else _outcome(task) for task in tasks]


def _outcome(task: asyncio.Task[T]) -> T | BaseException:
    if task.cancelled():
        return ClosedClientError(base.CLOSED_UNDER)
    error = task.exception()
    return task.result() if error is None else error


async def _end(tasks: Sequence[asyncio.Task[object]], most_s: float) -> None:
    """Cancels tasks and lets them clean up."""
    for task in tasks:
        task.cancel()
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=most_s + GRACE_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # asked for here, so that asyncio does not report it as never retrieved
