"""Sends the requests of the asyncio client: connections, slots, attempts, streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from id3pm_client import _base as base
from id3pm_client._bar import Bar
from id3pm_client._connection import Connection
from id3pm_client._errors import (
    CancelledRequestError,
    ClientError,
    ClosedClientError,
    DeadlineExceededError,
)
from id3pm_client._grpc import AsyncGrpcTransport
from id3pm_client._request import Call, ClientRequest, Tensors
from id3pm_client._server_pool import Server
from id3pm_client._steps import ASK_TIMEOUT_S, EVERY_S, Steps
from id3pm_client._stream import WATCH_TIMEOUT_S, Event, StageRequest, Streaming
from id3pm_client._transport import GRACE_S, AsyncTransport, Outcome

logger = logging.getLogger("id3pm_client")
T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncRequests")


class AsyncRequests(base.BaseClient[AsyncTransport]):
    """Keeps the connections, sends requests and waits for them; the calls are `AsyncClient`'s."""

    def _open(self, connection: Connection) -> AsyncTransport:
        return AsyncGrpcTransport(connection)

    def _prepare(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # the first call of a coroutine chooses it
        self._slots: asyncio.Semaphore
        self._closing: asyncio.Future[None]

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
        self._slots = asyncio.Semaphore(self.max_in_flight)
        self._closing = loop.create_future()
        self._in_flight.clear()
        for server in self._server_pool.servers:
            server.in_flight = 0

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards.

        What is under way in other tasks ends with `ClosedClientError`; see `Client.close`.
        """
        if not self._closed:
            self._begin()
        calls = self._mark_closed()
        if not self._closing.done():
            self._closing.set_result(None)
        try:
            await self._ask(calls, base.CANCEL_TIMEOUT_S)
        finally:
            await _all((server.transport.close() for server in self._server_pool.servers), base.CANCEL_TIMEOUT_S)

    async def _run(
        self, requests: Sequence[ClientRequest[AsyncTransport]], on_answer: Callable[[int, Tensors], None]
    ) -> None:
        """Sends all requests, as many at once as there are slots; the first failure gives up the others."""
        self._begin()
        tasks: list[asyncio.Task[None]] = []
        tasks += [
            asyncio.create_task(self._complete(tasks, i, request, on_answer)) for i, request in enumerate(requests)
        ]
        try:
            if tasks:
                # Each task ends by itself: it waits for slots, whose holders have time limits, and has one of its own.
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for error in [task.exception() for task in done if not task.cancelled()]:
                    if error is not None:
                        raise error
                if any(task.cancelled() for task in done):  # not by this client, which would have raised above
                    raise asyncio.CancelledError
        except BaseException:
            await _end(tasks)
            await self._stop_work(requests)
            raise
        finally:
            self._in_flight.difference_update(requests)

    async def _complete(
        self,
        tasks: Sequence[asyncio.Task[None]],
        position: int,
        request: ClientRequest[AsyncTransport],
        on_answer: Callable[[int, Tensors], None],
    ) -> None:
        """One request of several from its slot to its answer; it keeps the slot while it waits for another attempt."""
        async with self._slots:
            delay_s: float | None = 0.0
            while delay_s is not None:
                try:
                    await self._pause(request, delay_s)
                    outcome = await self._attempt(request)
                    delay_s = self._judge(request, outcome)
                except ClientError:
                    # Now, before one of them gets this slot.
                    for task in tasks:
                        if task is not asyncio.current_task():
                            task.cancel()
                    raise
        assert not isinstance(outcome, ClientError)
        on_answer(position, outcome)

    @contextlib.asynccontextmanager
    async def _followed(
        self, requests: Sequence[ClientRequest[AsyncTransport]], bar: Bar | None
    ) -> AsyncGenerator[None, None]:
        """Shows meanwhile how far the requests are, and what they wait for."""
        if bar is None:
            yield
            return
        steps = Steps(requests, self.urls, bar)

        async def follow() -> None:
            while not self._closed:
                await asyncio.sleep(EVERY_S)
                outcomes = await self._ask(steps.questions(), ASK_TIMEOUT_S)
                steps.read(outcomes, self._waiting, self._budget.answered)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            await _end([task])

    async def _run_stage(self, streaming: Streaming[AsyncTransport]) -> AsyncGenerator[Event, None]:
        """Both stages of a stream. No slot is taken: a caller that holds a stream may request other images."""
        self._begin()
        try:
            first = streaming.first()
            async with contextlib.aclosing(self._stage_request(first, None)) as events:
                async for event in events:
                    yield event
            second = streaming.second(first.tensors)
            async with contextlib.aclosing(self._stage_request(second, first.request.server)) as events:
                async for event in events:
                    yield event
            yield streaming.image()
        except BaseException:  # also where the caller leaves
            await self._stop_work(streaming.requests)
            raise
        finally:
            self._in_flight.difference_update(streaming.requests)

    async def _stage_request(
        self, current: StageRequest[AsyncTransport], prefer: Server[AsyncTransport] | None
    ) -> AsyncGenerator[Event, None]:
        """One stage: its events; its answer is in `current` afterwards."""
        delay_s: float | None = 0.0
        while delay_s is not None:
            await self._pause(current.request, delay_s)
            attempt = asyncio.create_task(self._attempt(current.request, prefer))
            watch: asyncio.Task[Outcome] | None = None
            wait_s: float | None = 0.0
            current.begin()
            try:
                await asyncio.sleep(0)  # lets the attempt begin: it chooses the server
                while current.waiting:
                    yield current.waiting.pop(0)
                while not attempt.done():
                    if wait_s is not None:
                        watch = asyncio.create_task(self._watch(current, wait_s))
                    running = [attempt] if watch is None else [attempt, watch]
                    # The attempt ends by itself: it keeps its time limit.
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    if attempt.done() or watch is None:
                        break
                    progress, wait_s = current.read(watch.result())
                    watch = None
                    if progress is not None:
                        yield progress
            finally:
                await _end([task for task in (attempt, watch) if task is not None and not task.done()])
            outcome = attempt.result()
            delay_s = self._judge(current.request, outcome)
            if not isinstance(outcome, ClientError):
                current.tensors = outcome

    async def _attempt(
        self, request: ClientRequest[AsyncTransport], prefer: Server[AsyncTransport] | None = None
    ) -> Tensors | ClientError:
        """Sends the next attempt of a request and waits for its outcome."""
        server, timeout_s = self._start_attempt(request, prefer)
        error: ClientError | None = CancelledRequestError("given up")
        try:
            outcome = await self._infer(server, request.call, timeout_s)
            error = outcome if isinstance(outcome, ClientError) else None
        finally:
            self._give_back(request, error)
        return outcome

    async def _watch(self, current: StageRequest[AsyncTransport], wait_s: float) -> Outcome:
        """Asks for progress, after a pause."""
        await asyncio.sleep(wait_s)
        assert current.request.server is not None
        return await self._infer(current.request.server, current.question(), WATCH_TIMEOUT_S)

    async def _pause(self, request: ClientRequest[AsyncTransport], delay_s: float) -> None:
        """Waits for the next attempt of a request; closing the client ends it."""
        await asyncio.wait([self._closing], timeout=delay_s)
        self._check_open(request)

    async def _infer(self, server: Server[AsyncTransport], call: Call, timeout_s: float) -> Outcome:
        try:
            self._check_open()
            return await _only(server.transport.infer(call, timeout_s), timeout_s)
        except ClientError as error:
            return error

    async def _stop_work(self, requests: Sequence[ClientRequest[AsyncTransport]]) -> None:
        calls = [] if self._closed else base.cancel_calls(requests)
        for (server, call), outcome in zip(calls, await self._ask(calls, base.CANCEL_TIMEOUT_S), strict=True):
            logger.debug("cancel at %s of %s: %s", call.model, server.url, outcome)

    async def _ask(
        self, calls: Sequence[tuple[Server[AsyncTransport], Call]], timeout_s: float
    ) -> list[Tensors | BaseException]:
        """Sends control calls at once, past the slots, and collects the answers in order."""
        return await _all((server.transport.infer(call, timeout_s) for server, call in calls), timeout_s)


async def _all(calls: Iterable[Coroutine[Any, Any, T]], timeout_s: float) -> list[T | BaseException]:
    """Awaits calls to the wire at once; one that does not keep its time limit counts as `DeadlineExceededError`.

    A transport that is closed cancels its calls, as if the task that waits were cancelled. Here each has a task of its
    own: what cancels one of them is the transport, and what is raised here comes from the caller.

    Raises:
        asyncio.CancelledError: The task that waits was cancelled, and the calls with it.
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    late: set[asyncio.Task[T]] = set()
    try:
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s + GRACE_S)
    finally:
        await _end([task for task in tasks if not task.done()])
    return [DeadlineExceededError(base.NO_OUTCOME) if task in late else _outcome(task) for task in tasks]


def _outcome(task: asyncio.Task[T]) -> T | BaseException:
    if task.cancelled():
        return ClosedClientError(base.CLOSED_UNDER)
    error = task.exception()
    return task.result() if error is None else error


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancels tasks and lets them clean up."""
    for task in tasks:
        task.cancel()
    if tasks:
        # A request tells its server first that it is over.
        done, _ = await asyncio.wait(tasks, timeout=base.CANCEL_TIMEOUT_S + GRACE_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # asked for here, so that asyncio does not report it as never retrieved


async def _only(call: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Awaits one call to the wire; see `_all`."""
    (outcome,) = await _all([call], timeout_s)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def control(call: Coroutine[Any, Any, T]) -> T:
    """Awaits one question to the wire; see `_all`."""
    return await _only(call, base.CONTROL_TIMEOUT_S)
