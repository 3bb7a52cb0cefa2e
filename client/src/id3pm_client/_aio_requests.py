"""Sends the requests of the asyncio client: slots, attempts, streams."""

from __future__ import annotations

import collections
import contextlib
import functools
import heapq
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TypeVar

from id3pm_client import _base as base
from id3pm_client._aio_io import AsyncConnections, repeating
from id3pm_client._aio_pending import AsyncPendingCalls
from id3pm_client._bar import Bar
from id3pm_client._calls import cancel_calls
from id3pm_client._errors import CancelledRequestError, ClientError
from id3pm_client._request import Call, ClientRequest
from id3pm_client._server_pool import Server
from id3pm_client._slots import Slot
from id3pm_client._steps import EVERY_S, POLL_TIMEOUT_S, Steps
from id3pm_client._stream import WATCH_TIMEOUT_S, AsyncEvents, Progress, StageRequest, Streaming
from id3pm_client._transport import AsyncTransport, Outcome
from id3pm_client._types import Tensors

logger = logging.getLogger("id3pm_client")
Self = TypeVar("Self", bound="AsyncRequests")
_ANSWER, _WATCH = 0, 1
_GIVEN_UP = CancelledRequestError("given up")
_SLOT_S = 60.0  # a call that waits for a slot looks so often whether it is there, though it is told


def _ignore(position: int, tensors: Tensors) -> None:
    """The answer is not needed."""


class AsyncRequests(AsyncConnections):
    """Sends requests and waits for them; the calls are `AsyncClient`'s."""

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards.

        Calls in other tasks end with `ClosedClientError`, and the servers are told to stop their work on
        it, which takes up to 2 s where one does not answer.
        """
        await self._close(base.CANCEL_TIMEOUT_S)

    async def _close(self, timeout_s: float) -> None:
        self._begin_close()
        calls = self._mark_closed()
        try:
            await self._call_all(calls, timeout_s)
        finally:
            await self._close_transports()

    async def _run(
        self, requests: Sequence[ClientRequest[AsyncTransport]], on_answer: Callable[[int, Tensors], None]
    ) -> None:
        """Sends all requests, as many at once as there are slots; the first failure ends the others."""
        await self._enter()
        try:
            async with _RequestCalls(self, requests) as pending:
                await self._run_all(requests, pending, on_answer)
        finally:
            self._in_flight.difference_update(requests)

    async def _run_all(
        self,
        requests: Sequence[ClientRequest[AsyncTransport]],
        pending: AsyncPendingCalls,
        on_answer: Callable[[int, Tensors], None],
    ) -> None:
        """A request keeps its slot until its answer, so one that waits for its next attempt holds back new ones."""
        slots = self._slots
        next_slot: Slot | None = None
        unsent = collections.deque(range(len(requests)))
        again: list[tuple[float, int]] = []  # a heap: when to send which request once more
        held: dict[int, Slot] = {}
        try:
            while unsent or held:
                if unsent and next_slot is None:
                    next_slot = slots.request(pending.wake)
                while again and again[0][0] <= time.monotonic():
                    _, position = heapq.heappop(again)
                    self._send(requests[position], pending, position)
                if not pending:
                    self._check_open(requests[again[0][1]] if again else None)
                if next_slot is not None and next_slot.granted:
                    position = unsent.popleft()
                    held[position], next_slot = next_slot, None
                    self._send(requests[position], pending, position)
                    continue
                arrived = await pending.next(again[0][0] if again else time.monotonic() + _SLOT_S)
                if arrived is None:
                    continue
                position, outcome = arrived
                delay_s = self._judge(requests[position], outcome)
                if delay_s is not None:
                    heapq.heappush(again, (time.monotonic() + delay_s, position))
                    continue
                assert not isinstance(outcome, ClientError)
                slots.give_back(held.pop(position))
                on_answer(position, outcome)
        finally:
            for slot in (*held.values(), next_slot):
                if slot is not None:
                    slots.give_back(slot)

    @contextlib.asynccontextmanager
    async def _with_progress(
        self, requests: Sequence[ClientRequest[AsyncTransport]], bar: Bar | None
    ) -> AsyncIterator[None]:
        """Shows the progress of the requests, and what they wait for."""
        if bar is None:
            yield
            return
        steps = Steps(requests, self.urls, bar)

        async def update() -> None:
            outcomes = [] if self._closed else await self._call_all(steps.polls(), POLL_TIMEOUT_S)
            steps.read(outcomes, self._waiting, self._budget.answered)

        async with repeating(update, EVERY_S, POLL_TIMEOUT_S):
            try:
                yield
            finally:
                steps.end()

    async def _stream_image(
        self,
        streaming: Streaming[AsyncTransport],
        analysis: ClientRequest[AsyncTransport] | None = None,
        on_answer: Callable[[int, Tensors], None] = _ignore,
    ) -> AsyncEvents:
        """The events of an image, after the analysis of a photograph if there is one.

        All in one generator: an event loop that ends closes all of its generators at once, which one that closes
        another does not survive. No slot is taken: a caller that holds a stream may request other images.
        """
        if analysis is not None:
            await self._run([analysis], on_answer)
            streaming.count_from(analysis)
        await self._enter()
        try:
            current: StageRequest[AsyncTransport] | None = streaming.first()
            prefer: Server[AsyncTransport] | None = None
            while current is not None:
                delay_s: float | None = 0.0
                while delay_s is not None:
                    async with _RequestCalls(self, [current.request]) as pending:
                        await self._pause(current.request, delay_s, pending)
                        server = self._send(current.request, pending, _ANSWER, prefer)
                        current.begin()
                        while current.waiting:
                            yield current.waiting.pop(0)
                        while current.outcome is None:
                            progress = await self._follow(current, server, pending)
                            if progress is not None:
                                yield progress
                        delay_s = self._judge(current.request, current.outcome)
                prefer, current = current.request.server, streaming.next(current)
            yield streaming.image()
        finally:
            self._in_flight.difference_update(streaming.requests)

    async def _follow(
        self, current: StageRequest[AsyncTransport], server: Server[AsyncTransport], pending: AsyncPendingCalls
    ) -> Progress | None:
        """Waits for what comes next of a stage: progress, or its outcome, which is then in `current`."""
        if current.watch_at <= time.monotonic() and not self._closed:
            pending.send(server.transport, current.watch_call(), WATCH_TIMEOUT_S, _WATCH)
            current.watch_at = math.inf
        arrived = await pending.next(math.inf if self._closed else current.watch_at)
        if arrived is None:
            return None
        if arrived[0] == _ANSWER:
            current.outcome = arrived[1]
            return None
        progress, wait_s = current.read(arrived[1])
        current.watch_at = math.inf if wait_s is None else time.monotonic() + wait_s
        return progress

    def _send(
        self,
        request: ClientRequest[AsyncTransport],
        pending: AsyncPendingCalls,
        key: int,
        prefer: Server[AsyncTransport] | None = None,
    ) -> Server[AsyncTransport]:
        """Sends the next attempt of a request; returns where it goes."""
        server, timeout_s = self._start_attempt(request, prefer)
        lost = functools.partial(self._give_back, request, _GIVEN_UP)
        pending.send(server.transport, request.call, timeout_s, key, lost)
        return server

    async def _pause(self, request: ClientRequest[AsyncTransport], delay_s: float, pending: AsyncPendingCalls) -> None:
        """Waits for the next attempt of a request; closing the client ends it."""
        until = time.monotonic() + delay_s
        while time.monotonic() < until and not self._closed:
            await pending.next(until)
        self._check_open(request)

    async def _stop_work(self, requests: Sequence[ClientRequest[AsyncTransport]]) -> None:
        calls = [] if self._closed else cancel_calls(requests)
        for (server, call), outcome in zip(calls, await self._call_all(calls, base.CANCEL_TIMEOUT_S), strict=True):
            logger.debug("cancel at %s of %s: %s", call.model, server.url, outcome)

    async def _call_all(self, calls: Sequence[tuple[Server[AsyncTransport], Call]], timeout_s: float) -> list[Outcome]:
        """Sends control calls at once, without slots, and collects the answers in order."""
        outcomes: dict[int, Outcome] = {}
        async with AsyncPendingCalls() as pending:
            for key, (server, call) in enumerate(calls):
                pending.send(server.transport, call, timeout_s, key)
            while pending:
                arrived = await pending.next()
                if arrived is not None:
                    outcomes[arrived[0]] = arrived[1]
        return [outcomes[key] for key in range(len(calls))]


class _RequestCalls(AsyncPendingCalls):
    """The calls of some requests. Where these fail, or the caller leaves, the servers are told to stop and end them.

    A class, not a generator: an event loop that ends closes its generators before these could await anything.
    """

    def __init__(self, client: AsyncRequests, requests: Sequence[ClientRequest[AsyncTransport]]) -> None:
        super().__init__(client._waiting_calls)
        self._client = client
        self._requests = requests

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if exc_type is not None:
                await self._client._stop_work(self._requests)
        finally:
            await super().__aexit__(exc_type, exc, traceback)
