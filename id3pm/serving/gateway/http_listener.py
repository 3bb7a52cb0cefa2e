"""Accepts HTTP connections within `Connections`, and closes idle and half-closed ones."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import select
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from id3pm.serving.gateway.connections import Connection, Connections
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.options import Tls
from id3pm.serving.launcher.control import is_exhausted
from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import RefusedError, code_of_http

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

logger = logging.getLogger(__name__)
_BACKLOG = 128
_EXHAUSTED_PAUSE_S = 0.2
_EXHAUSTED_LINE_S = 60.0
_FIRST_CHECK_S, _LONGEST_CHECK_S = 0.05, 1.0
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol of one connection, with a time for the first request and an answer after a half close.

    A caller may close its half of the connection after its request (`nc -N`) and still wait for the answer. A caller
    that has disconnected closes both halves, which looks the same until data is sent to it. So an interim response is
    sent, which every HTTP/1.1 client skips: the kernel of a disconnected caller then resets the connection.
    """

    __slots__ = ("_connection", "_connections", "_first", "_half_close_timer", "answered")

    def __init__(self, connection: Connection, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection = connection
        self._connections = connections
        self._first: asyncio.TimerHandle | None = None
        self._half_close_timer: asyncio.TimerHandle | None = None
        self.answered = False  # whether the response to the current request has begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._first = self._loop.call_later(limits.FIRST_REQUEST_S, self._first_is_due)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        for timer in (self._first, self._half_close_timer):
            if timer is not None:
                timer.cancel()
        self._connections.forget(self._connection)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp always closes
        """See `asyncio.Protocol`: whether the connection stays open for an answer."""
        if self._idle() or self._uploading() or self.ssl_context is not None:  # TLS has no half close here
            return False
        self._half_close_timer = self._loop.call_later(_FIRST_CHECK_S, self._check_half_closed, _FIRST_CHECK_S, False)
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers bytes that are not HTTP with a JSON error, without repeating them."""
        self.log_exception("a connection speaks no HTTP", exc_info=exc)
        text = "this is no HTTP request" if status < 500 else "internal error; the server's log says more"
        response = web.json_response(RefusedError(code_of_http(status), text).document, status=status)
        response.headers["Server"] = "id3pm"
        response.force_close()
        return response

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A request of this connection is being answered, which keeps it open."""
        self.answered = False
        with self._connections.answering(self._connection.peer):
            yield

    def uploading(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """A body arrives, which does not keep the connection open; returns the function that reports more bytes."""
        return self._connections.uploading(self._connection.peer)

    def _first_is_due(self) -> None:
        if not self._connection.used and self.transport is not None:
            self.transport.abort()

    def _idle(self) -> bool:
        """Whether there is no request, here or in a handler."""
        return self._waiter is not None and not self._waiter.done()

    def _uploading(self) -> bool:
        request = self._current_request
        return request is not None and not request.content.is_eof()

    def _check_half_closed(self, pause_s: float, sent: bool) -> None:
        """Checks after a half close, repeatedly: is the caller connected, and is there a request to answer?"""
        transport = self.transport
        if transport is None:
            return
        if self._idle():
            transport.close()
        elif _hung_up(transport):
            transport.abort()
        else:
            request = self._current_request
            if not sent and request is not None and not self.answered and request.version >= (1, 1):
                transport.write(_INTERIM)
                sent = True
            else:
                pause_s = min(2.0 * pause_s, _LONGEST_CHECK_S)
            self._half_close_timer = self._loop.call_later(pause_s, self._check_half_closed, pause_s, sent)


def connection_of(request: web.BaseRequest) -> HttpConnection:
    """The connection over which a request came."""
    protocol = request.protocol
    assert isinstance(protocol, HttpConnection)
    return protocol


class HttpListener:
    """One public port of HTTP.

    Args:
        app: The application.
        most: Limit of open connections.
        tls: Certificate and key, or `None` for plain text.
        counters: Count connections that are not HTTP.
    """

    def __init__(self, app: web.Application, most: int, tls: Tls | None, counters: Counters) -> None:
        self.connections = Connections(most)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=limits.CLOSE_S)
        self._tls = tls
        self._log = _ProtocolLog(counters)
        self._context: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self._said = -_EXHAUSTED_LINE_S

    async def start(self, host: str, port: int) -> None:
        """Listens on all addresses of `host`.

        Raises:
            OSError: One cannot be listened on.
            ConfigError: Certificate and key are unusable.
        """
        await self._runner.setup()
        self._context = None if self._tls is None else self._tls.context()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, address in dict.fromkeys((*entry[:3], entry[4]) for entry in found):
            sock = socket.socket(family, kind, protocol)
            self._sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(_BACKLOG)
            self._spawn(self._accept(sock))

    async def close(self) -> None:
        """Accepts no more, and closes what is open; requests have a moment to end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        await self._runner.cleanup()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                if is_exhausted(error):
                    self._exhausted(error)
                    await asyncio.sleep(_EXHAUSTED_PAUSE_S)
                elif error.errno in (errno.EBADF, errno.EINVAL):  # closed
                    return
                continue  # that one connection has gone before it was taken
            try:
                connection = self.connections.admit(sock.getpeername(), functools.partial(_shut, sock))
            except OSError:  # it has gone already
                connection = None
            if connection is None:
                sock.close()
            else:
                self._spawn(self._connect(connection, sock))

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {"ssl": self._context, "ssl_handshake_timeout": limits.FIRST_REQUEST_S}
        try:
            await loop.connect_accepted_socket(
                lambda: HttpConnection(
                    connection,
                    self.connections,
                    server,
                    loop=loop,
                    logger=self._log,
                    access_log=None,
                    keepalive_timeout=limits.KEEPALIVE_S,
                    auto_decompress=False,  # `BodyReader` does, within its limits
                ),
                sock,
                **tls,
            )
        except (OSError, ssl.SSLError, asyncio.TimeoutError):  # noqa: UP041 - no handshake: no answer is possible
            self.connections.forget(connection)
            sock.close()

    def _exhausted(self, error: OSError) -> None:
        self.connections.make_room()
        if time.monotonic() - self._said > _EXHAUSTED_LINE_S:
            self._said = time.monotonic()
            logger.error("no new connections for now: %s", error.strerror)


class _ProtocolLog(_Adapter):
    """Stands in for aiohttp's logger, which writes a traceback with the bytes that it could not read.

    Any caller can cause that before a token is checked, and so fill the log, with text of its choice or with data that
    must not be logged.

    Args:
        counters: Count such requests.
    """

    def __init__(self, counters: Counters) -> None:
        super().__init__(logging.getLogger(__name__), {})
        self._counters = counters

    def exception(self, msg: object, *args: object, exc_info: object = True, **kwargs: object) -> None:
        """Counts bytes that are not HTTP; for other errors the log gets their class."""
        if isinstance(exc_info, HttpProcessingError):
            self._counters.count("http", "400")
        else:
            self.error(f"{msg} (%s)", *args, type(exc_info).__name__)

    def debug(self, msg: object, *args: object, exc_info: object = None, **kwargs: object) -> None:
        """The same for a connection whose first bytes are no HTTP."""
        if isinstance(exc_info, HttpProcessingError):
            self._counters.count("http", "400")


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the caller was faster
        sock.shutdown(socket.SHUT_RDWR)


def _hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether both halves are closed, or the connection is reset."""
    poll = select.poll()
    with contextlib.suppress(ValueError):  # it is closed here, and has no number any more
        poll.register(transport.get_extra_info("socket").fileno(), 0)
        return bool(poll.poll(0))
    return True
