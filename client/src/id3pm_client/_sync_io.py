"""Parts of the blocking client that differ from the asyncio one: queue, threads, channels, exit handler."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from id3pm_client import _base as base
from id3pm_client._connection import Connection
from id3pm_client._errors import ClientError
from id3pm_client._grpc import GrpcTransport
from id3pm_client._request import Call
from id3pm_client._server_pool import Server
from id3pm_client._slots import Slots
from id3pm_client._transport import GRACE_S, Outcome, SyncTransport

T = TypeVar("T")
_OPEN: weakref.WeakSet[SyncConnections] = weakref.WeakSet()


class SyncConnections(base.BaseClient[SyncTransport]):
    """The connections of a client; any thread may use them."""

    def _open(self, connection: Connection) -> SyncTransport:
        return GrpcTransport(connection)

    def _prepare(self) -> None:
        self._slots = Slots(self.max_in_flight)
        _OPEN.add(self)

    def _enter(self) -> None:
        """Before a call sends anything: as `_begin`; names have been looked up once, or it has taken too long.

        Raises:
            ClosedClientError: See `_begin`.
        """
        self._begin()
        self._discovery.begin()
        self._discovery.first_lookup.wait(timeout=base.CONTROL_TIMEOUT_S)
        for server in self._server_pool.take_unused():
            server.transport.close()

    def _begin_close(self) -> None:
        _OPEN.discard(self)

    def _close(self, timeout_s: float) -> None:
        """Closes the client; its servers have so many seconds to answer."""
        raise NotImplementedError

    def _close_transports(self) -> None:
        for server in self._server_pool.take_all():
            server.transport.close()

    def _is_ready(self, server: Server[SyncTransport], model: str | None) -> bool:
        return server.transport.is_ready(model, base.CONTROL_TIMEOUT_S)

    def _server_metadata(self, server: Server[SyncTransport]) -> tuple[str, str]:
        return server.transport.server_metadata(base.CONTROL_TIMEOUT_S)


class SyncQueue(Generic[T]):
    """A queue between threads."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Adds an item."""
        self._items.put(item)

    def get(self, until: float) -> T | None:
        """The oldest item; `None` where there is none until this monotonic time."""
        try:
            return self._items.get(timeout=max(until - time.monotonic(), 0.0))
        except queue.Empty:
            return None


def submit(
    transport: SyncTransport, call: Call, timeout_s: float, on_done: Callable[[Outcome], None]
) -> Callable[[], object]:
    """Sends a call; returns what cancels it."""
    return transport.submit(call, timeout_s, on_done)


@contextlib.contextmanager
def repeating(work: Callable[[], None], every_s: float, most_s: float) -> Iterator[None]:
    """Does `work`, which takes up to `most_s` seconds, again and again meanwhile, in a thread of its own."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            with contextlib.suppress(ClientError):
                work()

    thread = threading.Thread(target=repeat, name="id3pm-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=most_s + GRACE_S)


@atexit.register
def _close_all() -> None:
    """Ends all streams that are still open while the transports' threads run; later, no thread would answer them."""
    end = time.monotonic() + base.CANCEL_TIMEOUT_S
    for client in list(_OPEN):
        with contextlib.suppress(Exception):  # the interpreter ends, whatever a server says
            client._close(max(end - time.monotonic(), 0.0))
