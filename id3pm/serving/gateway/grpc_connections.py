"""Connections of the gRPC port, found among the file descriptors, because the library accepts them itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from id3pm.serving.gateway.connections import Connection, Connections

_DESCRIPTORS = Path("/proc/self/fd")
_LOOK_S = 0.25


class GrpcConnections:
    """Keeps a port's connections within `Connections`, several times a second.

    Between two checks the library's own limit holds, which refuses the latest connection.

    Args:
        port: The port.
        connections: Its connections.
    """

    def __init__(self, port: int, connections: Connections) -> None:
        self._port = port
        self._connections = connections
        self._known: dict[tuple[int, int], Connection | None] = {}  # by descriptor and inode; None is another socket

    async def run(self) -> None:
        """Checks until it is cancelled."""
        while True:
            with contextlib.suppress(OSError):  # no free descriptor for the check; the next one may have one
                self.look()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Counts new connections, and forgets closed ones."""
        found: set[tuple[int, int]] = set()
        for name in os.listdir(_DESCRIPTORS):
            with contextlib.suppress(OSError):  # closed meanwhile
                status = os.fstat(int(name))
                if stat.S_ISSOCK(status.st_mode):
                    found.add((int(name), status.st_ino))
        for gone in self._known.keys() - found:
            if (connection := self._known.pop(gone)) is not None:
                self._connections.forget(connection)
        for new in sorted(found - self._known.keys(), key=lambda key: key[1]):  # inodes grow with time
            self._known[new] = self._admitted(new)

    def _admitted(self, key: tuple[int, int]) -> Connection | None:
        sock = _socket(key)
        if sock is None:
            return None
        with sock, contextlib.suppress(OSError):  # it listens, or has gone
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] == self._port:
                connection = self._connections.admit(sock.getpeername(), lambda: _shut(key))
                if connection is None:
                    sock.shutdown(socket.SHUT_RDWR)
                return connection
        return None


def _socket(key: tuple[int, int]) -> socket.socket | None:
    """A second descriptor of a socket, which stays this socket whatever becomes of the first."""
    try:
        copy = os.dup(key[0])
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    if os.fstat(copy).st_ino == key[1]:
        return socket.socket(fileno=copy)
    os.close(copy)
    return None


def _shut(key: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        if (sock := _socket(key)) is not None:
            with sock:
                sock.shutdown(socket.SHUT_RDWR)
