"""Calls of a client that is closed before or during them; for both clients."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from id3pm_client import (
    AsyncClient,
    Call,
    CancelledRequestError,
    Client,
    ClientError,
    ClosedClientError,
    ConnectionFailedError,
    GeneratedImage,
    InternalServerError,
    InvalidRequestError,
    OverloadedError,
    Progress,
    Retry,
)
from tests.client.conftest import Blocking, FakeAsyncTransport, FakeServer, FakeSyncTransport
from tests.client.test_client_failures import cancelled, failing, seed_of

VECTOR = np.ones(4)
PIXELS = np.full((6, 5, 3), 200, np.uint8)
STAGES = ("denoiser_64", "super_resolution")
LONG_PAUSE = Retry(first_delay_s=120.0, max_delay_s=120.0)
Use = Callable[[Any], Any]
UNDER_WAY: dict[str, Use] = {
    "one": lambda client: client.generate(VECTOR, 1),
    "several": lambda client: client.generate(VECTOR, [0, 1, 2]),
    "more than slots": lambda client: client.generate(VECTOR, range(40)),
    "photo": lambda client: client.generate_from_photo(PIXELS, 1),
    "embed": lambda client: client.embed(PIXELS),
    "stream": lambda client: list(client.stream(VECTOR, 7)),
}
AT_ONCE = {"several": 3, "more than slots": 16}


class Closing:
    """Lets one call begin, closes the client under it and tells how the call ends."""

    def __init__(self, close_under: Callable[[Use, Callable[[], bool], Any], None]) -> None:
        self._close_under = close_under

    def error(
        self, use: Use, ready: Callable[[], bool], expected: type[ClientError] = ClosedClientError, **settings: Any
    ) -> ClientError:
        """The error of `use`, whose client is closed as soon as `ready()`."""
        start = time.monotonic()
        with pytest.raises(expected) as caught:
            self._close_under(use, ready, settings)
        assert time.monotonic() - start < 10.0, "at once, whatever it waited for"
        return caught.value


def close_sync(server: FakeServer) -> Callable[[Use, Callable[[], bool], Any], None]:
    def close_under(use: Use, ready: Callable[[], bool], settings: Any) -> None:
        client = Client(transport=FakeSyncTransport(server), **settings)

        def close() -> None:
            until(ready)
            client.close()

        closer = threading.Thread(target=close)
        closer.start()
        try:
            use(client)
        finally:
            closer.join(10)

    return close_under


def close_async(server: FakeServer, loop: asyncio.AbstractEventLoop) -> Callable[[Use, Callable[[], bool], Any], None]:
    def close_under(use: Use, ready: Callable[[], bool], settings: Any) -> None:
        client = AsyncClient(transport=FakeAsyncTransport(server), **settings)

        async def close() -> None:
            await until_async(ready)
            await client.close()

        closer = loop.create_task(close())
        try:
            use(Blocking(client, loop))
        finally:
            loop.run_until_complete(closer)

    return close_under


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


async def until_async(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


@pytest.fixture(params=["sync", "async"])
def closing(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[Closing]:
    loop = asyncio.new_event_loop()
    yield Closing(close_sync(server) if request.param == "sync" else close_async(server, loop))
    loop.close()


@pytest.mark.parametrize("name", UNDER_WAY)
def test_a_call_under_way_ends_with_an_error_that_says_why(closing: Closing, server: FakeServer, name: str) -> None:
    server.delay_s = lambda call: 60.0
    error = closing.error(UNDER_WAY[name], lambda: len(server.calls) == AT_ONCE.get(name, 1))
    assert "this client was closed before the answer came" in str(error)
    assert error.request_id in {call.request_id for call in server.calls}
    assert server.in_flight == 0
    assert server.late == []


@pytest.mark.parametrize("name", UNDER_WAY)
def test_the_servers_are_told_to_stop_before_the_connection_is_gone(
    closing: Closing, server: FakeServer, name: str
) -> None:
    server.delay_s = lambda call: 60.0
    closing.error(UNDER_WAY[name], lambda: len(server.calls) == AT_ONCE.get(name, 1))
    assert cancelled(server) == {call.request_id for call in server.calls} == set(server.given_up)


def test_a_batch_that_is_cut_short_is_no_list_of_what_had_come(closing: Closing, server: FakeServer) -> None:
    server.delay_s = lambda call: 0.0 if seed_of(call) == 0 else 60.0
    seen: list[int] = []

    def use(client: Any) -> Any:
        return client.generate(VECTOR, [0, 1, 2], on_image=lambda position, image: seen.append(image.seed))

    error = closing.error(use, lambda: bool(seen) and len(server.calls) == 3)
    assert error.index in (1, 2)
    assert seen == [0]
    assert cancelled(server) == {call.request_id for call in server.calls if seed_of(call) != 0}


@pytest.mark.parametrize("failure", [OverloadedError("queue full"), ConnectionFailedError("Socket closed")])
@pytest.mark.parametrize("use", UNDER_WAY.values(), ids=UNDER_WAY)
def test_a_pause_between_attempts_ends_and_nothing_more_is_sent(
    closing: Closing, server: FakeServer, use: Use, failure: Exception
) -> None:
    failing(server, lambda call: True, failure)
    closing.error(use, lambda: bool(server.calls), retry=LONG_PAUSE, timeout_s=1000.0)
    sent = [call.request_id for call in server.calls]
    assert len(sent) == len(set(sent)), "no second attempt"
    assert server.late == []


def answering_the_cancel(server: FakeServer, error: Exception) -> None:
    """As the stages do it: the request itself ends where `close` has it stopped, before the connection is closed."""
    server.delay_s = lambda call: None
    failing(server, lambda call: True, error)
    begin = server.begin

    def stopping(call: Call, timeout_s: float) -> Any:
        if "control" in call.inputs:
            request_id = call.inputs["control"][0][1].decode()
            server.on_last_step.pop(("id3pm", request_id), lambda: None)()
        return begin(call, timeout_s)

    server.begin = stopping  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (CancelledRequestError("the request was cancelled"), "^this client was closed before the answer came$"),
        (OverloadedError("queue full"), "^this client was closed .*; the last attempt: queue full$"),
        (ConnectionFailedError("Socket closed"), "^this client was closed .*; the last attempt: Socket closed$"),
    ],
)
def test_what_the_server_says_to_the_cancel_is_no_reason_to_try_again(
    closing: Closing, server: FakeServer, answer: Exception, message: str
) -> None:
    answering_the_cancel(server, answer)
    error = closing.error(UNDER_WAY["one"], lambda: bool(server.on_last_step))
    assert re.search(message, str(error))
    assert len(server.calls) == 1
    assert server.late == []


def test_a_refusal_that_comes_at_the_last_moment_is_told(closing: Closing, server: FakeServer) -> None:
    answering_the_cancel(server, InvalidRequestError("steps=0: too few"))
    closing.error(UNDER_WAY["one"], lambda: bool(server.on_last_step), InvalidRequestError)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stream_ends_in_either_stage_with_the_error_and_is_no_cancellation(
    closing: Closing, server: FakeServer, stage: str
) -> None:
    server.delay_s = lambda call: 60.0 if call.model == stage else None
    events: list[Any] = []

    def use(client: Any) -> None:
        for event in client.stream(VECTOR, 7):
            events.append(event)

    error = closing.error(use, lambda: any(isinstance(e, Progress) and e.stage == stage for e in events))
    assert error.request_id == server.calls[0].request_id
    assert not any(isinstance(event, GeneratedImage) for event in events)
    assert server.late == []
    assert set(server.controls) == {(each, "cancel", error.request_id) for each in STAGES}


def test_a_stream_that_is_held_while_its_client_is_closed_says_so_when_it_goes_on(
    client: Any, server: FakeServer
) -> None:
    server.delay_s = lambda call: None if call.model == STAGES[0] else 60.0
    stream = client.stream(VECTOR, 7)
    next(stream)
    client.close()
    with pytest.raises(ClosedClientError):
        list(stream)
    assert server.late == []
    assert server.in_flight == 0


def test_a_stream_that_has_not_begun_says_so(client: Any, server: FakeServer) -> None:
    streams = [client.stream(VECTOR, 7), client.stream_from_photo(PIXELS, 7)]
    client.close()
    for stream in streams:
        with pytest.raises(ClosedClientError, match="has been closed"):
            next(stream)
    assert server.calls == server.late == []


def test_closing_cancels_nothing_that_has_ended_and_may_be_repeated(make_client: Any, server: FakeServer) -> None:
    failing(server, lambda call: seed_of(call) == 5, InternalServerError("engine failed"))
    client = make_client()
    client.generate(VECTOR, range(3))
    with pytest.raises(InternalServerError):
        client.generate(VECTOR, 5)
    client.close()
    client.close()
    assert server.controls == []
    assert server.late == []


def test_closing_in_on_image_ends_the_call(server: FakeServer) -> None:
    server.delay_s = lambda call: 0.0 if seed_of(call) == 0 else 60.0
    client = Client(transport=FakeSyncTransport(server))
    with pytest.raises(ClosedClientError):
        client.generate(VECTOR, [0, 1, 2], on_image=lambda position, image: client.close())
    assert cancelled(server) == {call.request_id for call in server.calls if seed_of(call) != 0}


def test_threads_that_wait_for_a_slot_are_told(server: FakeServer) -> None:
    server.delay_s = lambda call: 60.0
    client = Client(transport=FakeSyncTransport(server), max_in_flight=1)
    errors: list[BaseException] = []

    def call(seed: int) -> None:
        try:
            client.generate(VECTOR, seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: bool(server.calls))
    client.close()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in errors] == [ClosedClientError] * 4
    assert len(server.calls) == 1
    assert server.late == []


def test_the_load_of_a_server_is_counted_right_where_a_request_cannot_be_sent(server: FakeServer) -> None:
    class Broken(FakeSyncTransport):
        def submit(self, call: Call, timeout_s: float, on_done: Callable[[Any], None]) -> Callable[[], None]:
            raise OSError("no more threads")

    client = Client(transport=Broken(server))
    with pytest.raises(OSError, match="no more threads"):
        client.generate(VECTOR, [1, 2])
    assert [one.in_flight for one in client._server_pool.servers] == [0]


ASYNC_CALLS: dict[str, Use] = {
    "generate": lambda client: client.generate(VECTOR, [0, 1]),
    "ping": lambda client: client.ping(),
    "describe": lambda client: client.describe(),
    "is_ready": lambda client: client.is_ready(),
    "server_info": lambda client: client.server_info(),
}


class Silent(FakeAsyncTransport):
    """Answers nothing, not even questions, until it is closed; `reached` once a call waits."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.reached = asyncio.Event()
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def infer(self, call: Call, timeout_s: float) -> Any:
        if call.inputs.get("control") is not None and call.inputs["control"][0][0] == b"cancel":
            return {}
        return await self._never()

    async def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        return await self._never()  # type: ignore[no-any-return]

    async def is_ready(self, model: str | None, timeout_s: float) -> bool:
        return await self._never()  # type: ignore[no-any-return]

    async def close(self) -> None:
        self._answer.cancel()

    async def _never(self) -> Any:
        self.reached.set()
        return await asyncio.shield(self._answer)


@pytest.mark.parametrize("use", ASYNC_CALLS.values(), ids=ASYNC_CALLS)
@pytest.mark.parametrize("cancel", [False, True])
def test_only_who_cancels_a_task_sees_it_cancelled(server: FakeServer, use: Use, cancel: bool) -> None:
    async def main() -> None:
        transport = Silent(server)
        client = AsyncClient(transport=transport)
        task = asyncio.create_task(use(client))
        await transport.reached.wait()
        if cancel:
            task.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError if cancel else ClosedClientError):
            await asyncio.wait_for(task, 10)
        assert task.cancelled() == cancel

    asyncio.run(main())


def test_a_task_that_is_cancelled_after_its_client_was_closed_is_cancelled(server: FakeServer) -> None:
    server.delay_s = lambda call: 60.0

    async def main() -> None:
        client = AsyncClient(transport=FakeAsyncTransport(server))
        task = asyncio.create_task(client.generate(VECTOR, [0, 1]))
        await until_async(lambda: bool(server.calls))
        closer = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closer

    asyncio.run(main())
    assert server.in_flight == 0


def test_a_cancelled_stream_in_a_pause_is_cancelled(server: FakeServer) -> None:
    failing(server, lambda call: True, OverloadedError("queue full"))

    async def main() -> None:
        async with AsyncClient(transport=FakeAsyncTransport(server), retry=LONG_PAUSE, timeout_s=1000) as client:
            task = asyncio.create_task(anext(client.stream(VECTOR, 7)))
            await until_async(lambda: bool(server.calls))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_a_request_that_a_stranger_cancels_is_no_success(server: FakeServer) -> None:
    def on_image(position: int, image: Any) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        async with AsyncClient(transport=FakeAsyncTransport(server)) as client:
            await client.generate(VECTOR, [0, 1], on_image=on_image)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
