"""deploy/envoy.yaml in a real Envoy, in front of two replicas that only answer: routing, retries, limits."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_process import Envoy
from waiting import wait_until

INFER = "/inference.GRPCInferenceService/ModelInfer"
PHOTO = b"p" * (40 * 2**20)


class Replica:
    """Answers with its number, over HTTP and gRPC.

    Attributes:
        refuses: Whether it answers 503 and UNAVAILABLE, as while it drains.
        cuts: Whether it breaks the connection in the middle of the next request.
        seen: Ids and bytes of the requests that it answered.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.refuses = self.cuts = False
        self.closed = False  # then connections that are open are of no use either
        self.ready = True
        self.seen: list[tuple[str, int]] = []
        self.headers: list[dict[str, str]] = []
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def do_GET(self) -> None:  # noqa: N802
                if replica.closed:
                    self._cut()
                    return
                self._answer(200 if replica.ready else 503, b"")

            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["content-length"]))
                if replica.cuts or replica.closed:
                    self._cut()
                    return
                if replica.refuses:
                    self._answer(503, b"{}")
                    return
                replica.seen.append((self.headers["x-request-id"], len(body)))
                replica.headers.append({name.lower(): value for name, value in self.headers.items()})
                self._answer(200, json.dumps(replica.number).encode())

            def _cut(self) -> None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self._grpc = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
        self._grpc.add_generic_rpc_handlers([self])
        self.ports = (self._http.server_address[1], self._grpc.add_insecure_port("127.0.0.1:0"))
        self._grpc.start()

    def service(self, details: Any) -> Any:
        """As `grpc.GenericRpcHandler`."""
        return grpc.unary_unary_rpc_method_handler(self._infer)

    def _infer(self, request: bytes, context: Any) -> bytes:
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        self.seen.append((dict(context.invocation_metadata()).get("x-request-id", ""), len(request)))
        return str(self.number).encode()

    def close(self) -> None:
        self.closed = True
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)
        self._grpc.stop(0).wait(timeout=5)


class Address:
    """Requests through Envoy."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.channel = grpc.insecure_channel(
            url, options=[("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
        )

    def http(self, request_id: str | None, body: bytes = b"{}", **headers: str) -> int:
        status, answer = self.status(request_id, body, **headers)
        assert status == 200, answer
        return int(answer)

    def status(self, request_id: str | None, body: bytes = b"{}", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.url, timeout=30)
        sent = {} if request_id is None else {"x-request-id": request_id}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request("POST", "/v2/models/id3pm/infer", body, sent)
            response = connection.getresponse()
            return response.status, response.read()

    def grpc(self, request_id: str, body: bytes = b"x") -> int:
        return int(self.channel.unary_unary(INFER)(body, metadata=[("x-request-id", request_id)], timeout=30))


def whole(envoy: Envoy, count: int = 2) -> bool:
    """Whether all replicas are on the ring."""
    return {len(ports) for ports in envoy.in_ring().values()} == {count}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Envoy, list[Replica]]]:
    replicas = [Replica(0), Replica(1)]
    envoy = Envoy(tmp_path_factory.mktemp("envoy"), [replica.ports for replica in replicas])
    wait_until(lambda: whole(envoy), pause_s=0.05)
    yield envoy, replicas
    envoy.close()
    for replica in replicas:
        replica.close()


@pytest.fixture
def replicas(behind: tuple[Envoy, list[Replica]]) -> Iterator[list[Replica]]:
    for replica in behind[1]:
        replica.seen.clear()
        replica.headers.clear()
    yield behind[1]
    for replica in behind[1]:
        replica.refuses = replica.cuts = False
        replica.ready = True
    wait_until(lambda: whole(behind[0]), pause_s=0.05)


@pytest.fixture
def address(behind: tuple[Envoy, list[Replica]]) -> Iterator[Address]:
    address = Address(behind[0].url)
    yield address
    address.channel.close()


def ids(count: int) -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number))) for number in range(count)]


def test_a_request_id_stays_on_one_replica_over_http_and_grpc(address: Address, replicas: list[Replica]) -> None:
    found = {request_id: address.http(request_id) for request_id in ids(40)}
    assert set(found.values()) == {0, 1}
    for request_id, number in found.items():
        assert address.grpc(request_id) == address.http(request_id) == number
    assert {request_id for replica in replicas for request_id, _ in replica.seen} == set(found), "as it was sent"


def test_requests_without_an_id_are_spread(address: Address, replicas: list[Replica]) -> None:
    assert {address.http(None) for _ in range(40)} == {0, 1}


@pytest.mark.parametrize("fault", ["refuses", "cuts"])
def test_a_request_goes_to_the_other_replica_with_its_whole_body(
    address: Address, replicas: list[Replica], fault: str
) -> None:
    (request_id,) = [each for each in ids(40) if address.http(each) == 0][:1]
    setattr(replicas[0], fault, True)
    for replica in replicas:
        replica.seen.clear()
    assert address.http(request_id, PHOTO) == 1
    assert replicas[1].seen == [(request_id, len(PHOTO))]
    if fault == "refuses":
        assert address.grpc(request_id, PHOTO) == 1


def test_a_replica_that_drains_keeps_its_place(
    address: Address, replicas: list[Replica], behind: tuple[Envoy, list[Replica]]
) -> None:
    """Readiness is false, new work is refused; `watch` and `cancel` still reach what it has."""
    (request_id,) = [each for each in ids(40) if address.http(each) == 0][:1]
    failures = r"cluster\.replicas_http\.health_check\.failure"
    before = behind[0].counted(failures)
    replicas[0].ready = False
    wait_until(lambda: behind[0].counted(failures) >= before + 1, pause_s=0.1)
    assert address.http(request_id) == address.grpc(request_id) == 0
    replicas[0].refuses = True
    assert address.http(request_id) == address.grpc(request_id) == 1
    replicas[0].refuses = False
    assert address.http(request_id) == address.grpc(request_id) == 0


@pytest.mark.parametrize(
    "value", ["x" * 64 * 1024, "a b", "\u00fc\u00df", "\xff\xfe", "", " ", "'; DROP TABLE", "%00%0a", "x" * 3000]
)
def test_no_request_id_disturbs_others(address: Address, replicas: list[Replica], value: str) -> None:
    others = [address.http(each) for each in ids(4)]
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        status, _ = address.status(value)
        assert status in (200, 400, 431)
    assert [address.http(each) for each in ids(4)] == others
    assert [address.grpc(each) for each in ids(4)] == others


def test_callers_do_not_set_retries_and_time_limits(address: Address, replicas: list[Replica]) -> None:
    address.http("a", x_envoy_upstream_rq_timeout_ms="1", x_envoy_max_retries="99", x_envoy_retry_on="5xx")
    (headers,) = replicas[0].headers + replicas[1].headers
    assert not headers.keys() & {"x-envoy-max-retries", "x-envoy-retry-on", "x-envoy-internal"}
    assert "x-envoy-expected-rq-timeout-ms" not in headers


def test_a_cancelled_call_reaches_the_replica(address: Address, replicas: list[Replica]) -> None:
    began, over = threading.Event(), threading.Event()

    def hanging(request: bytes, context: Any) -> bytes:
        context.add_callback(over.set)
        began.set()
        assert over.wait(timeout=20)
        return b"0"

    for replica in replicas:
        replica._infer = hanging  # type: ignore[method-assign]
    try:
        call = address.channel.unary_unary(INFER).future(b"x", metadata=[("x-request-id", "a")], timeout=30)
        assert began.wait(timeout=10)
        call.cancel()
        assert over.wait(timeout=10), "the caller is gone"
    finally:
        for replica in replicas:
            del replica._infer


def test_nothing_ends_a_long_image(behind: tuple[Envoy, list[Replica]]) -> None:
    """Waiting for minutes is no test: the limits that Envoy says it has."""
    document = json.loads(behind[0].ask("/config_dump"))
    text = json.dumps(document)
    routes = [route for found in _all(document, "routes") for route in found]
    assert {route["route"]["cluster"] for route in routes} == {"replicas_grpc", "replicas_http"}
    for route in routes:
        assert route["route"]["timeout"] == route["route"]["idle_timeout"] == "0s"
    assert '"stream_idle_timeout": "0s"' in text
    assert "max_stream_duration" not in text and '"request_timeout"' not in text


def _all(value: Any, key: str) -> Iterator[Any]:
    """All values of a key, at any depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            yield from _all(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _all(item, key)


def test_a_dead_replica_is_left_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    living, dead = Replica(0), Replica(1)
    envoy = Envoy(tmp_path_factory.mktemp("envoy"), [living.ports, dead.ports])
    address = Address(envoy.url)
    try:
        wait_until(lambda: whole(envoy), pause_s=0.05)
        dead.close()
        began = time.monotonic()
        assert {address.http(each) for each in ids(20)} == {0}
        assert {address.grpc(each) for each in ids(20)} == {0}
        assert time.monotonic() - began < 20.0
        assert envoy.counted(r"cluster\.replicas_http\.outlier_detection\.ejections_enforced_total") >= 1
    finally:
        address.channel.close()
        envoy.close()
        living.close()


def test_of_five_replicas_two_are_gone_and_few_other_requests_move(tmp_path: Path) -> None:
    replicas = [Replica(number) for number in range(5)]
    envoy = Envoy(tmp_path, [replica.ports for replica in replicas])
    address = Address(envoy.url)
    try:
        wait_until(lambda: whole(envoy, 5), pause_s=0.05)

        def rings() -> list[dict[str, int]]:
            return [{each: ask(each) for each in ids(100)} for ask in (address.http, address.grpc)]

        # Envoy collects changes of health for a second before it changes the rings; then HTTP and gRPC have the same.
        wait_until(lambda: rings()[0] == rings()[1])
        before = rings()[0]
        assert all(list(before.values()).count(number) >= 5 for number in range(5))
        replicas[1].refuses = True  # it drains
        replicas[3].close()
        for after in rings() + rings():
            assert set(after.values()) == {0, 2, 4}, "every request is answered, by the others"
            others = [each for each, number in before.items() if number not in (1, 3)]
            # Without 3 the others have more points on the ring: these take over some requests of each other.
            assert sum(after[each] != before[each] for each in others) <= 0.25 * len(others)
        wait_until(lambda: {len(ports) for ports in envoy.in_ring().values()} == {4}, pause_s=0.05)
        time.sleep(8.0)
        assert {len(ports) for ports in envoy.in_ring().values()} == {4}, "the ring does not change to and fro"
    finally:
        address.channel.close()
        envoy.close()
        for replica in (each for each in replicas if each.number != 3):
            replica.close()
