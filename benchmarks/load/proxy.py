"""A TCP proxy that can cut its connections: the network between client and server, with a switch."""

from __future__ import annotations

import asyncio
import contextlib

CHUNK = 1 << 16


class Proxy:
    """Passes bytes between its own port and a target, until it is cut. Belongs to one event loop.

    Args:
        target: `host:port`.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut = False
        self.dropped = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        self._drop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    @property
    def url(self) -> str:
        """`host:port` to connect to."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Breaks all connections, and every new one at once, until `mend`."""
        self._cut = True
        self._drop()

    def mend(self) -> None:
        """Lets connections through again."""
        self._cut = False

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
            self.dropped += 1
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:  # the server is down: the caller sees a broken connection, as without a proxy
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= {writer, back}
            for end in (writer, back):
                end.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()  # and so the other direction ends as well
