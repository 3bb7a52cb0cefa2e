"""The server pool of a client: chooses the server of each request. No I/O, so both clients share it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from id3pm_client._errors import ClientError, InvalidRequestError, UnavailableError

TransportT = TypeVar("TransportT")
# A server that failed gets no work for a while that doubles with each failure, as long as another one is available.
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
MOST_DOUBLINGS = 64  # of a delay; more would leave the range of float


class Server(Generic[TransportT]):
    """One server as this client sees it.

    Attributes:
        url: `host:port` of its gRPC endpoint.
        name: `host:port` that was looked up to find it, or empty.
        transport: The wire to it.
        in_flight: How many of this client's requests it has.
        unavailable_until: Monotonic time before which it is used only if all others are unavailable too.
    """

    def __init__(self, url: str, transport: TransportT, name: str = "") -> None:
        self.url = url
        self.name = name
        self.transport = transport
        self.in_flight = 0
        self.unavailable_until = 0.0
        self._failures = 0
        self._turn = 0  # time of its latest request: equal servers alternate

    def _rank(self, avoid: Server[TransportT] | None, prefer: Server[TransportT] | None) -> tuple[bool, bool, int, int]:
        return self is avoid, self is not prefer, self.in_flight, self._turn

    def _ended(self, error: ClientError | None, now: float) -> None:
        self.in_flight -= 1
        if error is None:
            self._failures = 0
        if not isinstance(error, UnavailableError):
            return
        if now >= self.unavailable_until:  # all requests that one failure ends count once
            self._failures += 1
        backoff_s = min(
            FIRST_BACKOFF_S * 2.0 ** min(self._failures - 1, MOST_DOUBLINGS), LONGEST_BACKOFF_S
        ) * random.uniform(0.5, 1.0)
        self.unavailable_until = max(self.unavailable_until, now + max(backoff_s, error.retry_after_s or 0.0))


class ServerPool(Generic[TransportT]):
    """Chooses servers; thread-safe."""

    def __init__(self, urls: Sequence[str], transports: Sequence[TransportT]) -> None:
        if len(urls) != len(transports):
            raise InvalidRequestError(f"{len(transports)} transports for {len(urls)} servers: give one for each")
        self.servers = tuple(Server(url, transport) for url, transport in zip(urls, transports, strict=True))
        self._left: list[Server[TransportT]] = []  # are not in use any more, and have a transport to close
        self._lock = threading.Lock()
        self._turns = 0

    def update(self, wanted: Mapping[str, str], opened: Callable[[str, str], TransportT | None]) -> None:
        """Servers have come or gone. One that has gone keeps the requests that it has.

        Args:
            wanted: The servers from now on: url, and the name that was looked up to find it. Empty changes nothing.
            opened: Called with url and name of a new one; its transport, or `None` if it must not be used.
        """
        known = {server.url: server for server in self.servers}
        made = {url: opened(url, name) for url, name in wanted.items() if url not in known}
        new = {url: Server(url, transport, wanted[url]) for url, transport in made.items() if transport is not None}
        with self._lock:
            servers = [found for url in wanted if (found := known.get(url) or new.get(url)) is not None]
            if servers:
                self._left += [server for server in self.servers if server not in servers]
                self.servers = tuple(servers)

    def take_unused(self) -> list[Server[TransportT]]:
        """The servers that have gone and have no request any more, to be closed; each is returned once."""
        with self._lock:
            unused = [server for server in self._left if server.in_flight == 0]
            self._left = [server for server in self._left if server.in_flight]
            return unused

    def take_all(self) -> list[Server[TransportT]]:
        """All servers, those that have gone too, to be closed."""
        with self._lock:
            return [*self.servers, *self._left]

    def server(self, url: str | None) -> Server[TransportT]:
        """The server at `url`, or the first one that has this name; for `None` the first one.

        Raises:
            InvalidRequestError: This client has no such server.
        """
        for server in self.servers:
            if url in (None, server.url, server.name):
                return server
        raise InvalidRequestError(f"url={url!r}: this client has {', '.join(server.url for server in self.servers)}")

    def take(
        self, now: float, avoid: Server[TransportT] | None = None, prefer: Server[TransportT] | None = None
    ) -> Server[TransportT]:
        """The server for one more request: available, and with the fewest of this client's requests in flight.

        Args:
            now: Monotonic time in seconds.
            avoid: Taken only where no other one is available: the request has just failed there.
            prefer: Taken where it is available: it knows the request.
        """
        with self._lock:
            available = [server for server in self.servers if server.unavailable_until <= now]
            if available:
                server = min(available, key=lambda server: server._rank(avoid, prefer))
            else:
                server = min(self.servers, key=lambda server: server.unavailable_until)
            self._turns += 1
            server._turn = self._turns
            server.in_flight += 1
            return server

    def give_back(self, server: Server[TransportT], error: ClientError | None, now: float) -> None:
        """A request that was sent to `server` has ended: with an answer where `error` is `None`."""
        with self._lock:
            server._ended(error, now)

    def has_other(self, server: Server[TransportT], now: float) -> bool:
        """Whether another server than this one is available."""
        with self._lock:
            return any(other is not server and other.unavailable_until <= now for other in self.servers)
