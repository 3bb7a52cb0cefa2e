"""No call waits longer than its limit, and no stream keeps the interpreter from ending."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from id3pm_client import AsyncClient, Call, Client, ClosedClientError, DeadlineExceededError, InvalidRequestError, Retry
from id3pm_client._request import ClientRequest, RetryBudget
from id3pm_client._server_pool import ServerPool
from tests.client.conftest import FakeServer, FakeSyncTransport
from tests.client.test_client_grpc import Service, service  # noqa: F401 - a fixture

VECTOR = np.ones(2, np.float32)
SYNC = """
import sys
from id3pm_client import Client, Image64
events = Client(sys.argv[1]).stream([0.5, 1.5], seed=14)
for event in events:
    if isinstance(event, Image64):
        break
print("end of the script", flush=True)
"""
ASYNC = """
import asyncio, sys
from id3pm_client import AsyncClient, Image64
async def main():
    global events
    events = AsyncClient(sys.argv[1]).stream([0.5, 1.5], seed=14)
    async for event in events:
        if isinstance(event, Image64):
            break
    print("end of the script", flush=True)
asyncio.run(main())
"""
MANUAL_LOOP = ASYNC.replace("asyncio.run(main())", "asyncio.new_event_loop().run_until_complete(main())")


@pytest.mark.parametrize(
    "script", [pytest.param(SYNC, id="sync"), pytest.param(ASYNC, id="async"), pytest.param(MANUAL_LOOP, id="no close")]
)
def test_the_interpreter_ends_while_a_stream_is_open(service: tuple[Service, str], script: str) -> None:  # noqa: F811
    made, url = service
    ended = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "end of the script\n"
    assert ended.returncode == 0
    if script != MANUAL_LOOP:  # there the loop no longer runs, and nothing can be sent
        assert ended.stderr == ""
        wanted = {(stage, "cancel", made.requests[0][0].id) for stage in ("denoiser_64", "super_resolution")}
        assert wanted <= made.controls, "the server was told to stop"


@contextlib.contextmanager
def silent_port() -> Iterator[str]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_silent_server_costs_the_time_limit_and_no_more(kind: str) -> None:
    async def run(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.generate(VECTOR, 1, timeout_s=1.5)

    with silent_port() as url:
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"no answer within 1\.5 s"):
            if kind == "async":
                asyncio.run(run(url))
            else:
                with Client(url) as client:
                    client.generate(VECTOR, 1, timeout_s=1.5)
        # The orders to stop take CANCEL_TIMEOUT_S more; they took 5 s.
        assert 1.4 < time.monotonic() - started < 4.5


class LostTransport(FakeSyncTransport):
    """Breaks its promise: no outcome ever comes, as where gRPC's threads have ended."""

    def submit(self, call: Call, timeout_s: float, on_done: Any) -> Any:
        self.server.calls.append(call)
        return lambda: None


class LostAsyncTransport:
    async def infer(self, call: Call, timeout_s: float) -> Any:
        await asyncio.sleep(3600)

    async def close(self) -> None:
        return None


@pytest.mark.parametrize("method", ["generate", "stream", "ping"])
def test_a_transport_that_gives_no_outcome_is_not_waited_for(
    server: FakeServer, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in (
        "_base.CONTROL_TIMEOUT_S",
        "_base.CANCEL_TIMEOUT_S",
        "_sync_pending.GRACE_S",
        "_aio_pending.GRACE_S",
        "_aio_io.GRACE_S",
    ):
        monkeypatch.setattr(f"id3pm_client.{limit}", 0.2)
    arguments: dict[str, Any] = {} if method == "ping" else {"seed": 1, "embedding": VECTOR, "timeout_s": 0.2}
    client = Client(transport=LostTransport(server))
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        outcome = getattr(client, method)(**arguments)
        list(outcome)
    assert time.monotonic() - started < 8.0

    async def run() -> None:
        client = AsyncClient(transport=LostAsyncTransport())
        call = getattr(client, method)(**arguments)
        if method == "stream":
            async for _ in call:
                pass
        else:
            await call

    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        asyncio.run(run())
    assert time.monotonic() - started < 8.0


def test_a_thread_that_waits_for_a_slot_hears_of_the_close(server: FakeServer) -> None:
    """Though whoever holds the slot never gives it back."""
    client = Client(transport=FakeSyncTransport(server), max_in_flight=1)
    assert client._slots.request(lambda: None).granted
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.generate(VECTOR, 1)
        except ClosedClientError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    client.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert len(errors) == 1


@pytest.mark.parametrize("timeout_s", [1e30, float("nan"), float("inf"), -1, 0, 10**400, True, "6", 86_401])
def test_a_time_limit_that_no_clock_can_keep_is_refused(client: Any, server: FakeServer, timeout_s: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout_s=.*: must be a number of seconds above 0 and up to 86400"):
        client.generate(VECTOR, 1, timeout_s=timeout_s)
    assert not server.calls


@pytest.mark.parametrize("timeout_s", [86_400, 1e-9])
def test_the_longest_and_shortest_limits_work(service: tuple[Service, str], timeout_s: float) -> None:  # noqa: F811
    with Client(service[1], retry=Retry(0)) as client:
        try:
            assert client.generate(VECTOR, 1, timeout_s=timeout_s).seed == 1
        except DeadlineExceededError:
            assert timeout_s < 1


@pytest.mark.parametrize(
    "settings",
    [
        {"first_delay_s": float("nan")},
        {"max_delay_s": float("inf")},
        {"limit": 1.5},
        {"budget": "many"},
        {"first_contact": True},
        {"limit": -1},
    ],
)
def test_a_retry_rule_that_is_no_number_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=f"Retry: {next(iter(settings))}="):
        Retry(**settings)


def test_thousands_of_failures_do_not_overflow() -> None:
    assert Retry(limit=10_000).delay_s(5_000) <= 5.0
    server_pool: ServerPool[Any] = ServerPool(["a:1"], [None])
    server = server_pool.servers[0]
    server._failures = 5_000
    request: ClientRequest[Any] = ClientRequest(Call("id3pm", {}, ()), 1.0, Retry(), RetryBudget(1))
    request.start_attempt(server_pool.take(0.0), 0.0)
    from id3pm_client import ConnectionFailedError

    server_pool.give_back(server, ConnectionFailedError("failed to connect"), 1.0)
    assert server.unavailable_until <= 31.0
