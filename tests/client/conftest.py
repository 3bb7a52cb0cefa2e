"""An in-process server with scripted answers, for both clients through their transports."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm_client import (
    AsyncClient,
    Call,
    CancelledRequestError,
    Client,
    ClientError,
    ClosedClientError,
    DeadlineExceededError,
    NotServedError,
)

DIM = 4
HANG = None  # the answer that never comes


class FakeServer:
    """Records what it is asked; `answer(call)` returns tensors, raises a ClientError or returns HANG."""

    def __init__(self) -> None:
        self.answer: Callable[[Call], dict[str, Any] | None] = echo
        # None: as long as it takes until a watch has seen the last step.
        self.delay_s: Callable[[Call], float | None] = lambda call: 0.0
        self.on_last_step: dict[tuple[str, str], Callable[[], None]] = {}
        self.calls: list[Call] = []
        self.timeouts: list[float] = []
        self.controls: list[tuple[str, str, str]] = []
        self.watches: list[tuple[str, str, int, str]] = []
        self.steps = {"denoiser_64": 4, "super_resolution": 3}
        self.working: set[tuple[str, str]] = set()
        self.given_up: list[str] = []
        self.late: list[Call] = []  # what was to be sent over a closed connection
        self.ready = True
        self.descriptions: dict[str, Any] = {
            "denoiser_64": {"bundle": "demo", "attributes": []},
            "super_resolution": {"bundle": "demo", "attributes": []},
        }
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.RLock()

    def begin(self, call: Call, timeout_s: float) -> tuple[dict[str, Any] | ClientError, float | None]:
        """The outcome of a call, and after how many seconds it comes; see `delay_s`."""
        with self._lock:
            if "control" in call.inputs:
                operation, request_id, *more = (text.decode() for text in call.inputs["control"][0])
                if operation == "watch":
                    return self._watch(call.model, request_id, int(more[0]), more[1], timeout_s)
                self.controls.append((call.model, operation, request_id))
                if operation == "cancel":
                    return NotServedError(f"no request {request_id}"), 0.0
                if operation == "describe":
                    return {"status": texts(json.dumps(self.descriptions[call.model]))}, 0.0
                return {"status": texts('{"active": 1, "waiting": 2}')}, 0.0
            self.calls.append(call)
            self.working.add((call.model, call.request_id))
            self.timeouts.append(timeout_s)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            outcome = self.answer(call)
        except ClientError as error:
            outcome = error
        if outcome is HANG:
            return DeadlineExceededError("Deadline Exceeded"), timeout_s
        return outcome, self.delay_s(call)

    def _watch(
        self, model: str, request_id: str, after: int, with_preview: str, timeout_s: float
    ) -> tuple[dict[str, Any] | ClientError, float]:
        """As the stages do it, each question a step further; who has seen the last one waits."""
        self.watches.append((model, request_id, after, with_preview))
        if not {(model, request_id), ("id3pm", request_id)} & self.working:
            return {"status": texts('{"found": false}')}, 0.0
        step, steps = after + 1, self.steps[model]
        if step == steps:
            self.on_last_step.pop((model, request_id), lambda: None)()
            return DeadlineExceededError("Deadline Exceeded"), timeout_s
        png = preview_png(step) if with_preview == "1" and (step or model == "super_resolution") else None
        row = {"done": False, "step": step, "steps": steps, "preview_png": png}
        return {"status": texts(json.dumps({"found": True, "rows": [row]}))}, 0.0

    def end(self, call: Call, given_up: bool) -> None:
        if "control" in call.inputs:
            return
        with self._lock:
            self.in_flight -= 1
            self.working.discard((call.model, call.request_id))
            if given_up:
                self.given_up.append(call.request_id)

    def seeds(self) -> list[int]:
        return [int(call.inputs["seed"][0, 0]) for call in self.calls]

    def seeds_of(self, model: str) -> list[int]:
        return [int(call.inputs["seed"][0, 0]) for call in self.calls if call.model == model]


class FakeSyncTransport:
    """As a gRPC channel: `close` ends what is under way, at once, and nothing can be sent afterwards."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.closed = False
        self._in_flight: set[Callable[[ClientError], None]] = set()

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Any], None]) -> Callable[[], None]:
        if self.closed:
            self.server.late.append(call)
            on_done(ClosedClientError("Cannot invoke RPC: Channel closed!"))
            return lambda: None
        outcome, delay_s = self.server.begin(call, timeout_s)
        once = threading.Lock()

        def finish(result: Any, given_up: bool) -> None:
            if once.acquire(blocking=False):
                self._in_flight.discard(end)
                self.server.end(call, given_up)
                on_done(result)

        timer = threading.Timer(timeout_s if delay_s is None else delay_s, finish, (outcome, False))
        timer.daemon = True
        if delay_s is None:
            self.server.on_last_step[call.model, call.request_id] = lambda: finish(outcome, False)

        def end(error: ClientError) -> None:
            timer.cancel()
            finish(error, True)

        self._in_flight.add(end)
        timer.start()
        if self.closed:  # meanwhile, by another thread
            end(ClosedClientError("Channel closed!"))
        return lambda: end(CancelledRequestError("Locally cancelled by application!"))

    def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        return "fake", "1"

    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        return ready(self.server)

    def close(self) -> None:
        self.closed = True
        for end in self._in_flight.copy():
            end(ClosedClientError("Channel closed!"))


class FakeAsyncTransport:
    """As a channel of `grpc.aio`: `close` raises `asyncio.CancelledError` in whoever waits for an answer."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.closed = False
        self._in_flight: set[asyncio.Task[Any]] = set()

    async def infer(self, call: Call, timeout_s: float) -> Any:
        if self.closed:
            self.server.late.append(call)
            raise ClosedClientError("Channel is closed.")
        outcome, delay_s = self.server.begin(call, timeout_s)
        seen = asyncio.Event()
        if delay_s is None:
            self.server.on_last_step[call.model, call.request_id] = seen.set
        answered: asyncio.Task[Any] = asyncio.create_task(seen.wait() if delay_s is None else asyncio.sleep(delay_s))
        self._in_flight.add(answered)
        try:
            await answered
        except asyncio.CancelledError:
            self.server.end(call, given_up=True)
            raise
        finally:
            self._in_flight.discard(answered)
        self.server.end(call, given_up=False)
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    async def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        return "fake", "1"

    async def is_ready(self, model: str | None, timeout_s: float) -> bool:
        return ready(self.server)

    async def close(self) -> None:
        self.closed = True
        for answered in self._in_flight:
            answered.cancel()


class Blocking:
    """`AsyncClient` with blocking methods, so that one test speaks to both clients."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        return self._blocking(member) if callable(member) else member

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return self._events(result) if inspect.isasyncgen(result) else self._loop.run_until_complete(result)

        return call

    def _events(self, stream: Any) -> Generator[Any, None, None]:
        try:
            while True:
                yield self._loop.run_until_complete(anext(stream))
        except StopAsyncIteration:
            return
        finally:
            self._loop.run_until_complete(stream.aclose())


def texts(*values: str) -> np.ndarray:
    return np.array([[value.encode() for value in values]], dtype=np.object_)


def preview_png(shade: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (shade, shade, shade)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def ready(server: FakeServer) -> bool:
    if isinstance(server.ready, Exception):
        raise server.ready
    return server.ready


def echo(call: Call) -> dict[str, Any]:
    """What a server answers, with pictures that show the request: all pixels are seed % 256."""
    if call.model == "face_embedding":
        return {
            "embedding": np.arange(DIM, dtype=np.float32)[None],
            "detection": np.arange(15, dtype=np.float32)[None],
            "faces": np.array([[2]], dtype=np.int32),
            "turned": np.array([[-90]], dtype=np.int32),
            "id_vector_model": np.array([[b"sface"]], dtype=np.object_),
        }
    seed = int(call.inputs["seed"][0, 0])
    first = float(call.inputs["embedding"][0, 0]) if "embedding" in call.inputs else None
    if "receipt_64" in call.inputs:
        first = json.loads(call.inputs["receipt_64"][0, 0])["first"]
    tensors = {
        "receipt_64": texts(json.dumps({"seed": seed, "first": first})),
        "image": np.full((1, 256, 256, 3), seed % 256, np.uint8),
        "image_64": np.full((1, 64, 64, 3), seed % 256, np.uint8),
        "receipt": texts(json.dumps({"seed": seed, "first": first})),
    }
    return {name: tensors[name] for name in call.outputs}


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[Callable[..., Any]]:
    """Makes a client of either kind with the given settings, its methods blocking."""

    def make_sync(servers: tuple[FakeServer, ...] = (server,), **settings: Any) -> Any:
        return Client(transport=[FakeSyncTransport(each) for each in servers], **settings)

    def make_async(servers: tuple[FakeServer, ...] = (server,), **settings: Any) -> Any:
        return Blocking(AsyncClient(transport=[FakeAsyncTransport(each) for each in servers], **settings), loop)

    loop = asyncio.new_event_loop()
    yield make_sync if request.param == "sync" else make_async
    loop.close()


@pytest.fixture
def client(make_client: Callable[..., Any]) -> Any:
    return make_client()


@pytest.fixture
def sync_transport(server: FakeServer) -> FakeSyncTransport:
    return FakeSyncTransport(server)


@pytest.fixture
def async_transport(server: FakeServer) -> FakeAsyncTransport:
    return FakeAsyncTransport(server)
