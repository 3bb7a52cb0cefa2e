"""One client, several servers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from id3pm_client import Call, ConnectionFailedError, InvalidRequestError, OverloadedError, Retry
from id3pm_client._server_pool import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, ServerPool
from tests.client.conftest import FakeServer

VECTOR = np.ones(4)
URLS = ["a:1", "b:1", "c:1"]


@pytest.fixture
def servers() -> tuple[FakeServer, ...]:
    return tuple(FakeServer() for _ in URLS)


@pytest.fixture
def many(make_client: Any, servers: tuple[FakeServer, ...]) -> Any:
    return make_client(servers, url=URLS, retry=Retry(limit=3, first_delay_s=0.002, max_delay_s=0.01))


def refusing(error: Exception) -> Any:
    def answer(call: Call) -> Any:
        raise error

    return answer


def test_a_batch_is_spread_evenly(many: Any, servers: tuple[FakeServer, ...]) -> None:
    for server in servers:
        server.delay_s = lambda call: 0.03
    images = many.generate(VECTOR, range(12))
    assert [image.seed for image in images] == list(range(12))
    assert [len(server.calls) for server in servers] == [4, 4, 4]
    assert many.urls == tuple(URLS)


def test_a_quicker_server_gets_more(many: Any, servers: tuple[FakeServer, ...]) -> None:
    servers[0].delay_s = lambda call: 0.4
    servers[1].delay_s = servers[2].delay_s = lambda call: 0.02
    many.generate(VECTOR, range(40))
    slow, *quick = (len(server.calls) for server in servers)
    assert slow < min(quick)


@pytest.mark.parametrize("error", [ConnectionFailedError("Socket closed"), OverloadedError("full", retry_after_s=60)])
def test_a_request_moves_on_at_once_where_its_server_fails(
    many: Any, servers: tuple[FakeServer, ...], error: Exception
) -> None:
    servers[0].answer = refusing(error)
    start = time.monotonic()
    images = many.generate(VECTOR, range(9))
    assert time.monotonic() - start < 5.0, "no request waits for the server that failed"
    assert [image.seed for image in images] == list(range(9))
    moved = {call.request_id for call in servers[0].calls}
    elsewhere = {call.request_id for server in servers[1:] for call in server.calls}
    assert moved <= elsewhere == {image.request_id for image in images}, "under the same ids"
    assert len(servers[0].calls) <= 3, "what comes later does not even try it"


def test_when_all_fail_the_error_comes_through(many: Any, servers: tuple[FakeServer, ...]) -> None:
    for server in servers:
        server.answer = refusing(ConnectionFailedError("failed to connect"))
    with pytest.raises(ConnectionFailedError, match="failed to connect"):
        many.generate(VECTOR, 1)
    assert sum(len(server.calls) for server in servers) == 4


def test_a_cancel_goes_to_the_servers_that_have_the_request(many: Any, servers: tuple[FakeServer, ...]) -> None:
    for server in servers[:2]:
        server.answer = lambda call: None
    servers[2].answer = refusing(InvalidRequestError("steps=0: must be between 1 and 1000"))
    servers[2].delay_s = lambda call: 0.05
    with pytest.raises(InvalidRequestError):
        many.generate(VECTOR, [1, 2, 3])
    for server in servers[:2]:
        ((call,), told) = server.calls, server.controls
        stages = ("denoiser_64", "super_resolution")
        assert told == [(stage, "cancel", call.request_id) for stage in stages]
    assert servers[2].controls == []


def test_a_request_that_may_run_on_two_servers_is_cancelled_on_both(many: Any, servers: tuple[FakeServer, ...]) -> None:
    servers[0].answer = refusing(ConnectionFailedError("Socket closed"))
    servers[1].answer = lambda call: None
    with pytest.raises(TimeoutError):
        many.generate(VECTOR, 1, timeout_s=0.1)
    assert len(servers[0].controls) == len(servers[1].controls) == 2


def test_each_server_can_be_asked_how_it_is(many: Any, servers: tuple[FakeServer, ...]) -> None:
    assert set(many.ping("b:1")) == {"denoiser_64", "super_resolution"}
    assert [len(server.controls) for server in servers] == [0, 2, 0]
    assert many.server_info("c:1").name == "fake"
    with pytest.raises(InvalidRequestError, match="url='d:1': this client has a:1, b:1, c:1"):
        many.ping("d:1")


def test_one_server_that_is_ready_is_enough(many: Any, servers: tuple[FakeServer, ...]) -> None:
    servers[0].ready = OverloadedError("Server exiting")
    servers[1].ready = False
    assert many.is_ready()
    servers[2].ready = False
    assert not many.is_ready()


def test_rests_grow_and_end() -> None:
    server_pool: ServerPool[None] = ServerPool(["a:1", "b:1"], [None, None])
    a, b = server_pool.servers
    now, rests = 100.0, []
    for _ in range(12):
        assert server_pool.take(now, avoid=b) is a
        server_pool.give_back(a, ConnectionFailedError("Socket closed"), now)
        assert server_pool.take(now) is b
        server_pool.give_back(b, None, now)
        rests.append(a.unavailable_until - now)
        now = a.unavailable_until
    assert FIRST_BACKOFF_S / 2 <= rests[0] <= FIRST_BACKOFF_S
    assert rests[3] >= 4 * FIRST_BACKOFF_S
    assert max(rests) <= LONGEST_BACKOFF_S
    server_pool.give_back(server_pool.take(now, avoid=b), None, now)
    assert server_pool.take(now, avoid=b) is a
    server_pool.give_back(a, ConnectionFailedError("Socket closed"), now)
    assert a.unavailable_until - now <= FIRST_BACKOFF_S, "a success ends the count"


def test_many_requests_that_one_failure_ends_count_once() -> None:
    server_pool: ServerPool[None] = ServerPool(["a:1"], [None])
    (a,) = server_pool.servers
    for _ in range(50):
        server_pool.take(100.0)
    for _ in range(50):
        server_pool.give_back(a, ConnectionFailedError("Socket closed"), 100.0)
    assert a.unavailable_until <= 100.0 + FIRST_BACKOFF_S
    assert a.in_flight == 0


def test_where_all_rest_the_first_to_wake_is_asked() -> None:
    server_pool: ServerPool[None] = ServerPool(["a:1", "b:1"], [None, None])
    a, b = server_pool.servers
    for server, seconds in ((a, 20), (b, 10)):
        server_pool.take(0.0, avoid=a if server is b else b)
        server_pool.give_back(server, OverloadedError("full", retry_after_s=seconds), 0.0)
    assert (a.unavailable_until, b.unavailable_until) == (20.0, 10.0)
    assert server_pool.take(1.0, avoid=b) is b
