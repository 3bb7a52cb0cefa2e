"""Calls end by their answers: a Triton before 25.04 may die of one that is given up while it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from test_client_grpc import VECTOR, answer, served
from tritonclient.grpc import service_pb2_grpc
from waiting import wait_until

from id3pm_client import AsyncClient, Client, ClientError, DeadlineExceededError, Progress

TICK_S = 0.1
"""The server's answers come so long after what ends the work, the time in which a client must not give up."""


class Working(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Works for `seconds`, or until it is cancelled or late; a watch lasts as long. Counts calls that were given up."""

    def __init__(self) -> None:
        self.seconds = 30.0
        self.cancelled = threading.Event()
        self.done = threading.Event()
        self.given_up: list[str] = []
        self.begun = self.ended = 0

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        tensors = zip(request.inputs, request.raw_input_contents, strict=True)
        words = [raw for tensor, raw in tensors if tensor.name == "control"]
        self.begun += 1
        try:
            if not words:
                return self.work(request, context)
            if b"cancel" in words[0]:
                self.cancelled.set()
                return answer(request, status=b'{"found": true}')
            step = 0 if b"-1" in words[0] else self.done.wait(20) and time.sleep(TICK_S) or 1
            rows = [{"step": step, "steps": 9, "done": self.done.is_set()}]
            return answer(request, status=json.dumps({"found": True, "rows": rows}).encode())
        finally:
            if not context.is_active():
                self.given_up.append(request.model_name + (" control" if words else ""))
            self.ended += 1

    def work(self, request: Any, context: Any) -> Any:
        limit_s = request.parameters["timeout"].int64_param / 1e6
        late = not self.cancelled.wait(min(self.seconds, limit_s)) and limit_s < self.seconds
        ended = late or self.cancelled.is_set()
        self.done.set()
        time.sleep(TICK_S if ended else 0.0)
        self.done.clear()
        if ended:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED, "it has ended")
        image, receipt = np.zeros((1, 256, 256, 3), np.uint8), b"{}"
        return answer(request, image=image, image_64=image[:, :64, :64], receipt=receipt, receipt_64=receipt)


@pytest.fixture
def service() -> Iterator[tuple[Working, str]]:
    made = Working()
    with served(made, made.cancelled) as url:
        yield made, url


def leaves(client: Client, way: str) -> None:
    """What a caller may do with a request that the server works on."""
    if way == "time limit":
        with pytest.raises(DeadlineExceededError):
            client.generate(VECTOR, 1, timeout_s=0.3)
    elif way == "stream":
        events = client.stream(VECTOR, 1)
        assert isinstance(next(events), Progress)
        events.close()
    elif way == "close":
        call = threading.Thread(target=generate, args=[client])
        call.start()
        time.sleep(0.3)
        client.close()
        call.join(5)
        assert not call.is_alive()
    else:
        assert list(client.stream(VECTOR, 1)), "to its end"


def generate(client: Client) -> None:
    with contextlib.suppress(ClientError):
        client.generate(VECTOR, 1)


async def leaves_async(client: AsyncClient, way: str) -> None:
    if way == "time limit":
        with pytest.raises(DeadlineExceededError):
            await client.generate(VECTOR, 1, timeout_s=0.3)
    elif way == "stream":
        async with contextlib.aclosing(client.stream(VECTOR, 1)) as events:
            assert isinstance(await anext(events), Progress)
    elif way == "close":
        call = asyncio.ensure_future(client.generate(VECTOR, 1))
        await asyncio.sleep(0.3)
        await client.close()
        with pytest.raises(ClientError):
            await call
    elif way == "task":
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.generate(VECTOR, 1), 0.3)
    else:
        assert [event async for event in client.stream(VECTOR, 1)], "to its end"


@pytest.mark.parametrize("way", ["time limit", "stream", "close", "end"])
def test_a_client_gives_up_no_call(service: tuple[Working, str], way: str) -> None:
    made, url = service
    made.seconds = 0.3 if way == "end" else 30.0
    with Client(url) as client:
        leaves(client, way)
    wait_until(lambda: made.begun == made.ended)
    assert made.begun >= 1 and made.given_up == []


@pytest.mark.parametrize("way", ["time limit", "stream", "close", "task", "end"])
def test_an_async_client_gives_up_no_call(service: tuple[Working, str], way: str) -> None:
    made, url = service
    made.seconds = 0.3 if way == "end" else 30.0

    async def main() -> None:
        async with AsyncClient(url) as client:
            await leaves_async(client, way)

    asyncio.run(main())
    wait_until(lambda: made.begun == made.ended)
    assert made.begun >= 1 and made.given_up == []


def test_a_call_that_the_server_does_not_end_is_given_up(service: tuple[Working, str]) -> None:
    made, url = service
    made.cancelled.set = lambda: None  # type: ignore[method-assign]
    began = time.monotonic()
    with Client(url) as client:
        events = client.stream(VECTOR, 1)
        next(events)
        events.close()
    assert time.monotonic() - began < 5.0
    del made.cancelled.set
