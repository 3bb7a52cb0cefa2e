"""How the asyncio client reaches the servers: connections, requests, answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._answers import control_answer
from id3pm_client._connection import Connection
from id3pm_client._errors import (
    CancelledRequestError,
    ClientError,
    DeadlineExceededError,
    NotServedError,
    UnavailableError,
)
from id3pm_client._fleet import Server
from id3pm_client._flight import Call, Flight, Tensors
from id3pm_client._grpc import AsyncGrpcTransport
from id3pm_client._stream import WATCH_TIMEOUT_S, Event, Leg, Streaming
from id3pm_client._transport import AsyncTransport, Outcome

logger = logging.getLogger("id3pm_client")
Self = TypeVar("Self", bound="AsyncFlights")


class AsyncFlights(base.BaseClient[AsyncTransport]):
    """Keeps the connections, sends requests and waits for them; the calls are `AsyncClient`'s."""

    def _open(self, connection: Connection) -> AsyncTransport:
        return AsyncGrpcTransport(connection)

    def _prepare(self) -> None:
        self._slots = asyncio.Semaphore(self.max_in_flight)

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards."""
        self._closed = True
        for server in self._fleet.servers:
            await server.transport.close()

    async def ping(self, url: str | None = None) -> dict[str, Mapping[str, Any]]:
        """What each stage's scheduler says about itself; see `Client.ping`."""
        self._check_open()
        calls = base.ping_calls(self._fleet.server(url))
        answers = {}
        for (_, call), outcome in zip(calls, await self._ask(calls), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answers[call.model] = control_answer(outcome)
        return answers

    async def describe(self, url: str | None = None) -> Mapping[str, Any]:
        """What a server serves and may be asked for; see `Client.describe`."""
        self._check_open()
        (outcome,) = await self._ask(base.describe_call(self._fleet.server(url)))
        if isinstance(outcome, BaseException):
            raise outcome
        return control_answer(outcome)

    async def is_ready(self) -> bool:
        """Whether at least one server can be reached and says that it takes requests."""
        self._check_open()
        for server in self._fleet.servers:
            try:
                if await server.transport.is_ready(contract.ID3PM, base.CONTROL_TIMEOUT_S):
                    return True
            except (UnavailableError, DeadlineExceededError, NotServedError):
                continue
        return False

    async def server_info(self, url: str | None = None) -> base.ServerInfo:
        """Name, version and readiness of a server and of its models; see `Client.server_info`."""
        self._check_open()
        wire = self._fleet.server(url).transport
        name, version = await wire.server_metadata(base.CONTROL_TIMEOUT_S)
        models = {model: await wire.is_ready(model, base.CONTROL_TIMEOUT_S) for model in contract.MODELS}
        return base.ServerInfo(name, version, await wire.is_ready(None, base.CONTROL_TIMEOUT_S), models)

    async def _run(self, flights: Sequence[Flight[AsyncTransport]], on_answer: Callable[[int, Tensors], None]) -> None:
        """Sends all flights, as many at once as there are slots; the first failure gives up the others."""
        self._check_open()
        tasks: list[asyncio.Task[None]] = []
        tasks += [asyncio.create_task(self._land(tasks, i, flight, on_answer)) for i, flight in enumerate(flights)]
        try:
            if tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for error in [task.exception() for task in done if not task.cancelled()]:
                    if error is not None:
                        raise error
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_work(flights)
            raise

    async def _land(
        self,
        tasks: Sequence[asyncio.Task[None]],
        position: int,
        flight: Flight[AsyncTransport],
        on_answer: Callable[[int, Tensors], None],
    ) -> None:
        """One flight of several from its slot to its answer; it keeps the slot while it waits for another attempt."""
        async with self._slots:
            delay_s: float | None = 0.0
            while delay_s is not None:
                await asyncio.sleep(delay_s)
                outcome = await self._attempt(flight)
                try:
                    delay_s = self._judge(flight, outcome)
                except ClientError:
                    # Now, before one of them gets this slot.
                    for task in tasks:
                        if task is not asyncio.current_task():
                            task.cancel()
                    raise
        assert not isinstance(outcome, ClientError)
        on_answer(position, outcome)

    async def _fly(self, streaming: Streaming[AsyncTransport]) -> AsyncGenerator[Event, None]:
        """Both stages of a stream. Past the slots: whoever holds a stream may ask for other images meanwhile."""
        self._check_open()
        try:
            first = streaming.first()
            async with contextlib.aclosing(self._leg(first, None)) as events:
                async for event in events:
                    yield event
            second = streaming.second(first.tensors)
            async with contextlib.aclosing(self._leg(second, first.flight.server)) as events:
                async for event in events:
                    yield event
            yield streaming.image()
        except BaseException:  # also where the caller leaves
            await self._stop_work(streaming.flights)
            raise

    async def _leg(
        self, leg: Leg[AsyncTransport], prefer: Server[AsyncTransport] | None
    ) -> AsyncGenerator[Event, None]:
        """One stage: its events; its answer is in `leg` afterwards."""
        delay_s: float | None = 0.0
        while delay_s is not None:
            await asyncio.sleep(delay_s)
            attempt = asyncio.create_task(self._attempt(leg.flight, prefer))
            watch: asyncio.Task[Outcome] | None = None
            wait_s: float | None = 0.0
            leg.begin()
            try:
                await asyncio.sleep(0)  # lets the attempt begin: it chooses the server
                while leg.waiting:
                    yield leg.waiting.pop(0)
                while not attempt.done():
                    if wait_s is not None:
                        watch = asyncio.create_task(self._watch(leg, wait_s))
                    running = [attempt] if watch is None else [attempt, watch]
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    if attempt.done() or watch is None:
                        break
                    progress, wait_s = leg.read(watch.result())
                    watch = None
                    if progress is not None:
                        yield progress
            finally:
                tasks = [task for task in (attempt, watch) if task is not None and not task.done()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            outcome = attempt.result()
            delay_s = self._judge(leg.flight, outcome)
            if not isinstance(outcome, ClientError):
                leg.tensors = outcome

    async def _attempt(
        self, flight: Flight[AsyncTransport], prefer: Server[AsyncTransport] | None = None
    ) -> Tensors | ClientError:
        """Sends the next attempt of a flight and waits for its outcome."""
        now = time.monotonic()
        server = self._fleet.take(now, avoid=flight.server, prefer=prefer)
        timeout_s = flight.take_off(server, now)
        error: ClientError | None = CancelledRequestError("given up")
        try:
            outcome = await self._infer(server, flight.call, timeout_s)
            error = outcome if isinstance(outcome, ClientError) else None
        finally:
            self._give_back(flight, error)
        return outcome

    async def _watch(self, leg: Leg[AsyncTransport], wait_s: float) -> Outcome:
        """Asks for progress, after a pause."""
        await asyncio.sleep(wait_s)
        assert leg.flight.server is not None
        return await self._infer(leg.flight.server, leg.question(), WATCH_TIMEOUT_S)

    @staticmethod
    async def _infer(server: Server[AsyncTransport], call: Call, timeout_s: float) -> Outcome:
        try:
            return await server.transport.infer(call, timeout_s)
        except ClientError as error:
            return error

    async def _stop_work(self, flights: Sequence[Flight[AsyncTransport]]) -> None:
        calls = [] if self._closed else base.cancel_calls(flights)
        for (server, call), outcome in zip(calls, await self._ask(calls), strict=True):
            logger.debug("cancel at %s of %s: %s", call.model, server.url, outcome)

    async def _ask(self, calls: Sequence[tuple[Server[AsyncTransport], Call]]) -> list[Tensors | BaseException]:
        """Sends control calls at once, past the slots, and collects the answers in order."""
        answers = (server.transport.infer(call, base.CONTROL_TIMEOUT_S) for server, call in calls)
        return await asyncio.gather(*answers, return_exceptions=True)
