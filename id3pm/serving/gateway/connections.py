"""Limits of the connections of a public port, and the choice of the one to close for a new one.

A caller can open connections to a port before any token is asked for, and each takes a file descriptor. So there is
a limit for each port, half of which one address may have; the connection that has been idle longest is closed.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import resource
import time
from collections.abc import Callable, Iterator

from id3pm.errors import ServerError
from id3pm.serving.protocol import limits


@dataclasses.dataclass(eq=False)
class Connection:
    """One connection of a caller.

    Attributes:
        peer: Its other end, as gRPC writes it: `ipv4:ADDRESS:PORT`.
        address: The address alone.
        shut: Ends it; its reader finds the end of the stream.
        used: Whether it has carried a request.
        since: `time.monotonic` of its last request.
    """

    peer: str
    address: str
    shut: Callable[[], object]
    used: bool = False
    since: float = dataclasses.field(default_factory=time.monotonic)


class Connections:
    """The open connections of one port.

    Args:
        most: Limit of open connections; half of it for one address.
    """

    def __init__(self, most: int) -> None:
        self.closed = 0
        self._most = most
        self._most_of_one = max(most // 2, 1)
        self._open: dict[str, Connection] = {}  # by their peers
        self._of: collections.Counter[str] = collections.Counter()  # by address
        self._at_work: collections.Counter[str] = collections.Counter()  # requests, by their peers

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, peername: tuple[object, ...], shut: Callable[[], object]) -> Connection | None:
        """Counts a new connection; `None` if there is no room for it, and no idle one to close.

        Args:
            peername: As `socket.getpeername` gives it.
            shut: See `Connection`.
        """
        peer, address = name_of(peername)
        if self._of[address] >= self._most_of_one and not self.make_room(address):
            return None
        if len(self._open) >= self._most and not self.make_room():
            return None
        connection = Connection(peer, address, shut, used=self._at_work[peer] > 0)
        self._open[peer] = connection
        self._of[address] += 1
        return connection

    def forget(self, connection: Connection) -> None:
        """Forgets a closed connection; may be called twice."""
        if self._open.get(connection.peer) is connection:
            del self._open[connection.peer]
            self._of[connection.address] -= 1
            if not self._of[connection.address]:
                del self._of[connection.address]

    def make_room(self, address: str | None = None) -> bool:
        """Closes an idle connection of the address with the most: first one without a request, then the longest idle.

        Args:
            address: Only among the connections from there.

        Returns:
            Whether there was one.
        """
        waiting = [
            entry
            for entry in self._open.values()
            if not self._at_work[entry.peer] and (address is None or entry.address == address)
        ]
        if not waiting:
            return False
        longest = min(waiting, key=lambda entry: (-self._of[entry.address], entry.used, entry.since))
        longest.shut()
        self.forget(longest)
        self.closed += 1
        return True

    @contextlib.contextmanager
    def answering(self, peer: str) -> Iterator[None]:
        """A request of this connection is being answered, which keeps it open."""
        self._at_work[peer] += 1
        self._asked(peer)
        try:
            yield
        finally:
            self._at_work[peer] -= 1
            if not self._at_work[peer]:
                del self._at_work[peer]
            self._asked(peer)

    @contextlib.contextmanager
    def uploading(self, peer: str) -> Iterator[Callable[[], None]]:
        """While a request arrives, its connection counts as idle; returns the function that reports more bytes."""
        self._at_work[peer] -= 1
        try:
            yield functools.partial(self._asked, peer)
        finally:
            self._at_work[peer] += 1

    def _asked(self, peer: str) -> None:
        if (connection := self._open.get(peer)) is not None:
            connection.used, connection.since = True, time.monotonic()


def name_of(address: tuple[object, ...]) -> tuple[str, str]:
    """The other end of a connection as gRPC writes it, and its address alone."""
    host, port = str(address[0]), address[1]
    return (f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"), host


@dataclasses.dataclass(frozen=True)
class Shares:
    """How many connections each port may have."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def of(cls, descriptors: int) -> Shares:
        """Limits for a number of file descriptors: a request over HTTP needs two, its connection and one to Triton."""
        left = descriptors - limits.RESERVED_DESCRIPTORS
        metrics = min(limits.MAX_METRICS_CONNECTIONS, left // 16)
        grpc = min(limits.MAX_GRPC_CONNECTIONS, left // 4)
        requests = limits.MAX_WORK + limits.MAX_QUERIES
        left -= metrics + grpc
        http = min(limits.MAX_HTTP_CONNECTIONS, left - requests if left > 2 * requests else left // 2)
        return cls(http, grpc, metrics)


def raise_descriptor_limit() -> int:
    """Raises this process's soft limit of file descriptors as far as is useful and allowed.

    Returns:
        The limit from now on.

    Raises:
        ServerError: It is too low to serve.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    wanted = limits.MAX_DESCRIPTORS if unlimited else min(limits.MAX_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the present limit must do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    allowed = limits.MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    if allowed < limits.MIN_DESCRIPTORS:
        raise ServerError(
            f"this process may open {allowed} files: at least {limits.MIN_DESCRIPTORS} are needed; raise `ulimit -n`"
        )
    return allowed
