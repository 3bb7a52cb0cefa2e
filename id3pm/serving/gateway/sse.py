"""`generate_stream`: the events of an image as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Awaitable, Mapping

from aiohttp import web

from id3pm.serving.gateway.access_log import note
from id3pm.serving.gateway.in_flight import InFlight
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.streaming import StreamRequest, read_stream_request, stream_image
from id3pm.serving.gateway.upstream import Upstream, Upstreams
from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import RefusedError, internal

logger = logging.getLogger(__name__)
_PROGRESS = "progress"


class _End:
    """The last event of a stream."""


Event = tuple[str, Mapping[str, object]] | RefusedError | _End
"""A name with its data, an error, or the end."""


class Events:
    """Events that are not written yet. Progress is merged for a slow reader: at most seven events wait."""

    def __init__(self) -> None:
        self.waiting: list[Event] = []
        self._some = asyncio.Event()

    def put(self, event: Event) -> None:
        """Adds an event; of progress that was not read only the last step remains, with the newest preview."""
        last = self.waiting[-1] if self.waiting else None
        if isinstance(event, tuple) and isinstance(last, tuple) and event[0] == last[0] == _PROGRESS:
            event = (_PROGRESS, {**last[1], **event[1]})
            self.waiting.pop()
        self.waiting.append(event)
        self._some.set()

    async def get(self) -> Event:
        """The next one."""
        await self._some.wait()
        event = self.waiting.pop(0)
        if not self.waiting:
            self._some.clear()
        return event


class EventStream:
    """Answers `generate_stream`.

    Args:
        upstreams: The connection to the stages.
        in_flight: All requests in flight.
        heartbeat_s: Seconds of silence before a comment line is sent.
        write_s: Seconds after which a reader that takes nothing counts as gone.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        in_flight: InFlight,
        heartbeat_s: float = limits.HEARTBEAT_S,
        write_s: float = limits.WRITE_S,
    ) -> None:
        self._upstreams = upstreams
        self._in_flight = in_flight
        self._heartbeat_s = heartbeat_s
        self._write_s = write_s

    async def answer(
        self,
        request: web.Request,
        origin: Origin,
        model: str,
        document: dict[str, object],
        held: contextlib.ExitStack | None = None,
    ) -> web.StreamResponse:
        """Streams until the image is done. An error before the first event is a plain HTTP error.

        Args:
            request: The HTTP request.
            origin: Its caller.
            model: `id3pm` or `id3pm_photo`.
            document: Its JSON body.
            held: See `InFlight.run`.

        Raises:
            RefusedError: The request cannot start, or its first stage refused it.
        """
        stream = await asyncio.to_thread(read_stream_request, origin, model, document, uuid.uuid4().hex)
        note(id=stream.id)
        upstream = self._upstreams.get()
        events = Events()
        streaming = asyncio.ensure_future(
            self._in_flight.run(origin.key(stream.id), upstream, _told(stream, upstream, events), held)
        )
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        try:
            await self._write(request, response, events, stream.id)
        finally:
            streaming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await streaming
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, events: Events, request_id: str) -> None:
        async def write(data: bytes) -> None:
            await taken(request, response.write(data), self._write_s)

        while True:
            try:
                event = await asyncio.wait_for(events.get(), self._heartbeat_s)
            except asyncio.TimeoutError:  # noqa: UP041 - another class before Python 3.11
                event = None
            if isinstance(event, RefusedError) and not response.prepared:
                raise event
            if not response.prepared:
                response.headers["X-Request-Id"] = request_id
                await response.prepare(request)
            if isinstance(event, _End):
                await response.write_eof()
                return
            if event is None:
                await write(b": still at work\n\n")
            elif isinstance(event, RefusedError):
                await write(_event("error", event.document))
            else:
                await write(_event(*event))


async def taken(request: web.Request, writing: Awaitable[object], seconds: float) -> None:
    """Waits for what is written to the sender of `request`; a caller that does not read in time counts as disconnected.

    Raises:
        asyncio.CancelledError: The caller did not read in time; aiohttp raises the same for a closed connection.
    """
    try:
        await asyncio.wait_for(writing, seconds)
    except (asyncio.TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
        raise asyncio.CancelledError from None


async def _told(stream: StreamRequest, upstream: Upstream, events: Events) -> None:
    """Puts the events of the image into a queue; an error comes last, then the end."""
    try:
        await stream_image(stream, upstream, lambda name, data: events.put((name, data)))
    except RefusedError as refusal:
        events.put(refusal)
    except Exception as error:  # any error: the caller must get it, without internals
        logger.exception("a stream failed")
        events.put(internal(error))
    finally:
        events.put(_End())


def _event(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
