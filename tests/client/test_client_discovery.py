"""A client of a name: all addresses that it has are its servers, and those come and go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from id3pm_client import ConnectionFailedError, InvalidRequestError, Retry
from id3pm_client import _aio_io as aio_io
from id3pm_client import _discovery as discovery
from id3pm_client import _sync_io as sync_io
from id3pm_client._connection import Connection
from id3pm_client._grpc import _routed
from id3pm_client._request import Call
from tests.client.conftest import FakeAsyncTransport, FakeServer, FakeSyncTransport

VECTOR = np.ones(4)
NAME = "dns:///faces.example:8001"
Hosts = dict[str, list[str]]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """The addresses of names; tests change them."""
    hosts: Hosts = {"faces.example": ["10.0.0.1", "10.0.0.2"]}

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if not hosts.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts[host]]

    monkeypatch.setattr(discovery.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(discovery, "REFRESH_S", 0.02)
    monkeypatch.setattr(discovery, "SOONEST_S", 0.0)
    return hosts


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeServer]:
    """The servers by url; a new one for each url that a client opens."""
    servers: dict[str, FakeServer] = {}

    def opened(kind: Callable[[FakeServer], Any]) -> Callable[..., Any]:
        def open_(self: Any, connection: Connection) -> Any:
            server = servers.setdefault(connection.url, FakeServer())
            server.transport = kind(server)  # type: ignore[attr-defined]
            return server.transport  # type: ignore[attr-defined]

        return open_

    monkeypatch.setattr(sync_io.SyncConnections, "_open", opened(FakeSyncTransport))
    monkeypatch.setattr(aio_io.AsyncConnections, "_open", opened(FakeAsyncTransport))
    return servers


@pytest.fixture
def named(make_client: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> Any:
    first = FakeServer()
    client = make_client((first,), url=NAME, retry=Retry(limit=20, first_delay_s=0.01, max_delay_s=0.02))
    servers["faces.example:8001"] = first
    yield client
    client.close()


def test_all_addresses_of_a_name_are_used(named: Any, servers: dict[str, FakeServer]) -> None:
    named.generate(VECTOR, range(8))
    assert named.urls == ("10.0.0.1:8001", "10.0.0.2:8001")
    assert [len(servers[url].calls) for url in named.urls] == [4, 4]
    assert servers["faces.example:8001"].calls == []


def test_servers_that_come_and_go_are_noticed(named: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> None:
    named.generate(VECTOR, range(2))
    hosts["faces.example"] = ["10.0.0.2", "10.0.0.3"]
    wait_until(lambda: named.discover() == ("10.0.0.2:8001", "10.0.0.3:8001"))
    before = len(servers["10.0.0.1:8001"].calls)
    named.generate(VECTOR, range(8))
    assert len(servers["10.0.0.1:8001"].calls) == before
    assert len(servers["10.0.0.3:8001"].calls) == 4
    assert servers["10.0.0.1:8001"].transport.closed  # type: ignore[attr-defined]
    assert not servers["10.0.0.2:8001"].transport.closed  # type: ignore[attr-defined]


def test_a_request_survives_the_end_of_all_servers(named: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> None:
    def gone(call: Call) -> Any:
        hosts["faces.example"] = ["10.0.0.9"]
        raise ConnectionFailedError("Socket closed")

    for url in ("10.0.0.1:8001", "10.0.0.2:8001"):
        servers[url] = FakeServer()
        servers[url].answer = gone
    image = named.generate(VECTOR, 7)
    assert image.seed == 7
    assert [call.request_id for call in servers["10.0.0.9:8001"].calls] == [image.request_id]


def test_a_server_that_has_gone_keeps_its_request_until_it_is_done(
    named: Any, hosts: Hosts, servers: dict[str, FakeServer]
) -> None:
    hosts["faces.example"] = ["10.0.0.1"]
    servers["10.0.0.1:8001"] = server = FakeServer()
    server.delay_s = lambda call: None  # until its last step has been seen
    events = named.stream(VECTOR, 1)
    next(events)
    hosts["faces.example"] = ["10.0.0.2"]
    rest = list(events)
    assert rest[-1].seed == 1
    assert server.controls == [], "nothing was cancelled"


def test_a_resolver_that_fails_ends_no_server(named: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> None:
    named.generate(VECTOR, 1)
    hosts.clear()
    for _ in range(3):
        named.generate(VECTOR, 1)
    assert named.discover() == ("10.0.0.1:8001", "10.0.0.2:8001")


def test_a_name_that_is_not_found_is_left_to_grpc(named: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> None:
    hosts.clear()
    assert named.generate(VECTOR, 1).seed == 1
    assert len(servers["faces.example:8001"].calls) == 1, "whose message says why"


def test_a_slow_resolver_delays_no_request(
    named: Any, hosts: Hosts, servers: dict[str, FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    named.generate(VECTOR, 1)
    answered = threading.Event()

    def slow(name: str) -> list[str]:
        assert answered.wait(timeout=20)
        return ["10.0.0.5:8001"]

    monkeypatch.setattr(discovery, "addresses", slow)
    wait_until(lambda: not named.generate(VECTOR, 1) or named.urls == ("10.0.0.1:8001", "10.0.0.2:8001"))
    answered.set()
    wait_until(lambda: named.discover() == ("10.0.0.5:8001",))


def test_a_name_may_stand_beside_addresses(make_client: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> None:
    client = make_client((FakeServer(), FakeServer()), url=["a:1", NAME])
    assert client.discover() == ("a:1", "10.0.0.1:8001", "10.0.0.2:8001")
    assert set(client.ping("faces.example:8001")) == {"denoiser_64", "super_resolution"}
    client.close()


def test_addresses_are_of_one_family_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    four, six = (socket.AF_INET, 1, 6, "", ("127.0.0.1", 1)), (socket.AF_INET6, 1, 6, "", ("::1", 1, 0, 0))
    monkeypatch.setattr(discovery.socket, "getaddrinfo", lambda *_, **__: [six, four, six])
    assert discovery.addresses("localhost:1") == ["[::1]:1"]
    assert discovery.addresses("x" * 300 + ":1") == ["[::1]:1"]
    monkeypatch.undo()
    assert discovery.addresses("x" * 300 + ":1") == []
    assert discovery.addresses("a..b:1") == []


@pytest.mark.parametrize("url", ["dns://10.0.0.1/faces:8001", "dns:///faces", "dns:///", "dns:///a b:1", "dns:///f:0"])
def test_another_form_of_name_is_refused(make_client: Any, url: str) -> None:
    with pytest.raises(InvalidRequestError, match="url="):
        make_client(url=url)


def test_a_token_goes_to_no_address_without_tls(make_client: Any, hosts: Hosts, servers: dict[str, FakeServer]) -> None:
    with pytest.raises(InvalidRequestError, match=r"a token for faces\.example:8001 would travel unencrypted"):
        make_client(url=NAME, token="t" * 16)
    hosts["localhost"] = ["127.0.0.1", "10.0.0.7"]
    client = make_client(url="dns:///localhost:8001", token="t" * 16)
    assert client.discover() == ("127.0.0.1:8001",), "localhost has an address elsewhere"
    client.close()


def test_proxies_are_told_the_request_of_each_call(named: Any, servers: dict[str, FakeServer]) -> None:
    seen: list[Call] = []
    for url in ("10.0.0.1:8001", "10.0.0.2:8001"):
        servers[url] = server = FakeServer()
        server.delay_s = lambda call: None
        begin = server.begin
        server.begin = lambda call, timeout_s, begin=begin: (seen.append(call), begin(call, timeout_s))[1]  # type: ignore[method-assign]
    events = named.stream(VECTOR, 1)
    for _ in range(3):
        next(events)
    events.close()
    kinds = {str(call.inputs["control"][0, 0]) if "control" in call.inputs else "work" for call in seen}
    assert kinds == {"b'watch'", "b'cancel'", "work"}
    (request_id,) = {call.routed_by for call in seen}
    assert {_routed((("a", "b"),), call) for call in seen} == {(("a", "b"), ("x-request-id", request_id))}
    seen.clear()
    named.ping()
    assert {_routed((), call) for call in seen} == {()}, "not about a request"


def test_the_header_cannot_be_set_by_hand(make_client: Any) -> None:
    with pytest.raises(InvalidRequestError, match="x-request-id is the id of each request"):
        make_client(headers={"X-Request-Id": "mine"})
