"""Reads the body of an HTTP request: within its limits, unpacked in small steps, never more than is allowed."""

from __future__ import annotations

import asyncio
import zlib
from typing import cast

from aiohttp import web

from id3pm.serving.gateway.admission import Grow
from id3pm.serving.gateway.http_listener import connection_of
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.protocol.status import RefusedError

_STEP = 256 * 1024
"""Bytes that are unpacked at a time, in about a millisecond."""
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's `wbits` for the encodings
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class BodyReader:
    """Reads bodies of HTTP requests.

    Args:
        counters: Count refused bodies.
        max_body: Bytes of one body, unpacked.
        body_s: Seconds for a body to arrive.
    """

    def __init__(self, counters: Counters, max_body: int, body_s: float) -> None:
        self._counters = counters
        self._max_body = max_body
        self._body_s = body_s
        self._turn = asyncio.Lock()

    async def read(self, request: web.Request, grow: Grow) -> bytes:
        """The body of a request.

        Args:
            request: The request.
            grow: Counts the bytes; it refuses what is too much for all bodies together.

        Raises:
            RefusedError: It is too large, too slow, or not in its declared encoding.
            asyncio.CancelledError: The caller closed the connection before the end.
        """
        announced = request.content_length
        if announced is not None and announced > self._max_body:
            raise self._too_large(f"{announced} bytes")
        unpacker = _unpacker(request)
        try:
            return await asyncio.wait_for(self._read(request, grow, unpacker), self._body_s)
        except asyncio.TimeoutError as error:  # noqa: UP041 - another class before Python 3.11
            raise RefusedError(
                "request_timeout", f"the body was not there after {self._body_s:g} s, the time for one"
            ) from error
        except RefusedError as refusal:
            raise refusal.with_traceback(None) from None  # its frames would keep the body, in a cycle with the task
        except Exception as error:
            if gone(request):  # an interrupted upload, for which aiohttp raises several classes
                raise asyncio.CancelledError from error
            why = "the body cannot be read: it is not sent as its headers say"
            raise RefusedError("invalid_argument", why) from error

    async def _read(self, request: web.Request, grow: Grow, unpacker: _Unpacker | None) -> bytes:
        body = bytearray()

        def take(data: bytes) -> None:
            nonlocal body
            grow(len(data))
            body += data
            if len(body) > self._max_body:
                raise self._too_large(f"{len(body)} bytes and more")

        with connection_of(request).uploading() as progress:
            async for part in request.content.iter_any():
                progress()
                if unpacker is None:
                    take(part)
                    continue
                unpacker.feed(part)
                take(unpacker.step())
                while unpacker.more:  # one body at a time, beside the event loop
                    async with self._turn:
                        data = await asyncio.to_thread(unpacker.step)
                    take(data)
        if unpacker is not None:
            unpacker.end()
        return cast("bytes", body)  # it reads like bytes, and a copy of 64 MiB would hold up the event loop

    def _too_large(self, size: str) -> RefusedError:
        self._counters.refused_bodies += 1
        return RefusedError("too_large", f"the body has {size}: at most {self._max_body} are allowed")


class _Unpacker:
    """gzip or deflate, some bytes at a time."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._window = _WINDOWS[encoding]
        self._packed = b""
        self._stream: zlib._Decompress | None = None

    def feed(self, packed: bytes) -> None:
        """More packed bytes."""
        self._packed += packed

    @property
    def more(self) -> bool:
        """Whether packed bytes are left."""
        return bool(self._packed)

    def step(self) -> bytes:
        """The next unpacked bytes; empty where more packed ones are needed."""
        while self._packed:
            if self._stream is None:
                if self._window == _ZLIB and self._packed[0] & 0x0F != zlib.DEFLATED:
                    self._window = _RAW  # what many senders call deflate
                self._stream = zlib.decompressobj(self._window)
            try:
                data = self._stream.decompress(self._packed, _STEP)
            except zlib.error as error:
                raise self._broken() from error
            self._packed = self._stream.unconsumed_tail
            if self._stream.eof:
                self._packed, self._stream = self._stream.unused_data, None
                if self._packed and self._window != _GZIP:  # gzip may have several parts
                    raise self._broken()
            if data:
                return data
        return b""

    def end(self) -> None:
        """Raises `RefusedError` where something is missing."""
        if self._stream is not None:
            raise self._broken()

    def _broken(self) -> RefusedError:
        return RefusedError("invalid_argument", f"the body cannot be read: it is no {self._encoding}")


def gone(request: web.Request) -> bool:
    """Whether the caller's connection is closed."""
    return request.transport is None or request.transport.is_closing()


def _unpacker(request: web.Request) -> _Unpacker | None:
    named = ",".join(request.headers.getall("Content-Encoding", []))
    encodings = [word for word in (part.strip().lower() for part in named.split(",")) if word not in ("", "identity")]
    if not encodings:
        return None
    if len(encodings) > 1 or encodings[0] not in _WINDOWS:
        raise RefusedError("unsupported_encoding", f"Content-Encoding={named[:64]!r}: must be one of gzip, deflate")
    return _Unpacker(encodings[0])
