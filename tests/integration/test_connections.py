"""No caller can end, stall or fill the service by connections and bodies: under `ulimit -n 1024`, which is usual."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving_process import Serving
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_until

from id3pm.serving.gateway.grpc_health import NOT_SERVING, SERVING, HealthCheckRequest, HealthCheckResponse

pytestmark = pytest.mark.server
DESCRIPTORS = 1024
GENERATE = "/v2/models/id3pm_png/generate"
ASKED = {"embedding": [0.1] * 128, "seed": 1}
ADVANCE_S = 0.5  # in which readiness answers on an idle machine; here the attacker computes on it, too
TOKENS = '[[caller]]\nname = "{name}"\ntoken = "{token}"\nmay_send = ["photo", "vector"]\n'


@pytest.fixture(scope="module")
def serving(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """From a folder whose name has spaces and letters beyond ASCII, in a process that may open 1024 files."""
    folder = tmp_path_factory.mktemp("named") / "my modèles 模型"
    shutil.copytree(repository, folder)
    log = tmp_path_factory.mktemp("log") / "access.log"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    running = Serving(folder, f"--access-log={log}", descriptors=DESCRIPTORS, environment=plain)
    running.access_log = log  # type: ignore[attr-defined]
    try:
        yield running
    finally:
        running.kill()


def ask(
    serving: Serving,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    port: int | None = None,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port or serving.http_port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def image(serving: Serving) -> str:
    status, content = ask(serving, "POST", GENERATE, ASKED)
    assert status == 200, content
    return str(json.loads(content)["png"])


@pytest.fixture(autouse=True)
def the_same_image_before_and_after(serving: Serving) -> Iterator[None]:
    before, tritonserver = image(serving), serving.tritonserver()
    yield
    assert image(serving) == before
    assert serving.process.poll() is None and serving.tritonserver() == tritonserver
    assert "Traceback" not in serving.said


def dial(serving: Serving) -> Any:
    return grpc.insecure_channel(f"127.0.0.1:{serving.grpc_port}", options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.mark.parametrize("port", ["http", "grpc", "metrics"])
def test_silent_connections_hold_nobody_up(serving: Serving, port: str) -> None:
    said = serving.said
    with contextlib.ExitStack() as held:
        for _ in range(1100):
            number = getattr(serving, f"{port}_port")
            held.enter_context(socket.create_connection(("127.0.0.1", number), timeout=10))
        assert len(os.listdir(f"/proc/{serving.process.pid}/fd")) < DESCRIPTORS - 100
        image(serving)
        assert ask(serving, "GET", "/metrics", port=serving.metrics_port)[0] == 200
        with dial(serving) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=30, wait_for_ready=True).ready
    assert serving.said == said, "not a line for any of them"


def raw(serving: Serving, body: dict[str, Any], *, version: str = "1.1") -> socket.socket:
    """A connection over which a request was sent."""
    content = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", serving.http_port), timeout=30)
    head = f"POST {GENERATE} HTTP/{version}\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
    sock.sendall(head.encode() + content)
    return sock


def rest(sock: socket.socket) -> bytes:
    found = b""
    while part := sock.recv(2**16):
        found += part
    return found


@pytest.mark.parametrize("steps", [3, 300])
def test_who_closes_his_half_of_the_connection_gets_the_answer(serving: Serving, steps: int) -> None:
    with raw(serving, {**ASKED, "steps": steps}) as sock:
        sock.shutdown(socket.SHUT_WR)
        content = rest(sock).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert content.startswith(b"HTTP/1.1 200 OK") and b'"png"' in content


def test_who_closes_both_halves_is_gone(serving: Serving) -> None:
    def gone() -> int:
        text = ask(serving, "GET", "/metrics", port=serving.metrics_port)[1].decode()
        return int(text.partition("\nid3pm_gateway_disconnects_total ")[2].split()[0])

    before = gone()
    with raw(serving, {**ASKED, "steps": 1000}) as sock:
        time.sleep(0.2)
        sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: gone() == before + 1, 10)


@pytest.mark.parametrize("named", ["br", "compress", "zstd", "gzip, gzip", "gzip, x-gzip", "\xe9"])
def test_other_content_encodings_are_refused_with_the_rule(serving: Serving, named: str) -> None:
    packed = gzip.compress(gzip.compress(json.dumps(ASKED).encode()))
    status, content = ask(serving, "POST", GENERATE, packed, {"Content-Encoding": named})
    assert status == 415 and "must be one of gzip, deflate" in json.loads(content)["error"]


def test_x_gzip_is_gzip(serving: Serving) -> None:
    packed = gzip.compress(json.dumps(ASKED).encode())
    status, content = ask(serving, "POST", GENERATE, packed, {"Content-Encoding": "x-gzip"})
    assert status == 200 and json.loads(content)["png"] == image(serving)


def test_uploads_that_break_off_are_499_in_one_line(serving: Serving) -> None:
    log: Path = serving.access_log  # type: ignore[attr-defined]
    said, lines = serving.said, log.read_text().splitlines()

    def logged() -> bool:
        return len(log.read_text().splitlines()) > len(lines)

    for packed in ("", "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n"):
        length = "" if "chunked" in packed else "Content-Length: 100000\r\n"
        for pause in (
            0.1,
            2.0,
            10.0,
        ):  # until the gateway has read the head: of a connection without one it says nothing
            with socket.create_connection(("127.0.0.1", serving.http_port), timeout=10) as sock:
                head = f"POST {GENERATE} HTTP/1.1\r\nHost: a\r\n{length}{packed}\r\n"
                sock.sendall(head.encode() + (b"ff\r\nabc" if "chunked" in packed else b""))
                time.sleep(pause)
            with contextlib.suppress(AssertionError):
                wait_until(logged, 5.0)
                break
        lines += (written := log.read_text().splitlines()[len(lines) :])
        assert [json.loads(line)["outcome"] for line in written] == ["499"]
    assert serving.said == said


class PingLoop:
    """Asks for readiness all the time; remembers the longest wait, and the most memory of the service."""

    def __init__(self, serving: Serving) -> None:
        self.longest_s, self.most = 0.0, 0
        self._serving = serving
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PingLoop:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            began = time.monotonic()
            assert ask(self._serving, "GET", "/v2/health/ready")[0] == 200
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            pages = int(Path(f"/proc/{self._serving.process.pid}/statm").read_text().split()[1])
            self.most = max(self.most, pages * os.sysconf("SC_PAGE_SIZE"))


WIDE = gzip.compress(b'{"preset": "' + b"x" * (62 * 2**20) + "\U0001f600".encode() + b'"}', 1)
ASCII = gzip.compress(b'{"a": 1, "a": 2, "preset": "' + b"x" * (62 * 2**20) + b'"}', 1)


@pytest.mark.parametrize(("packed", "status"), [(WIDE, 413), (ASCII, 400)], ids=["one emoji", "ASCII"])
def test_a_little_gzip_is_not_a_lot_of_memory(serving: Serving, packed: bytes, status: int) -> None:
    statuses: list[int] = []

    def send() -> None:
        statuses.append(ask(serving, "POST", GENERATE, packed, {"Content-Encoding": "gzip"})[0])

    threads = [threading.Thread(target=send, daemon=True) for _ in range(6)]
    with PingLoop(serving) as pings:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
    assert set(statuses) <= {status, 429} and status in statuses
    assert pings.most < 1.2 * 2**30
    assert pings.longest_s < 10 * ADVANCE_S


def test_a_message_of_empty_parts_is_not_a_lot_of_memory(serving: Serving) -> None:
    with PingLoop(serving) as pings, dial(serving) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                infer(b"\x2a\x00" * (30 * 2**20), timeout=60)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "fields" in caught.value.details()
    assert pings.most < 2**30
    assert pings.longest_s < 10 * ADVANCE_S


def test_idle_streams_make_room_for_others(serving: Serving) -> None:
    ended = threading.Event()

    def silence() -> Iterator[Any]:
        ended.wait(60)
        return
        yield

    with contextlib.ExitStack() as held:
        held.callback(ended.set)
        for _ in range(32):
            channel = held.enter_context(dial(serving))
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(silence(), timeout=60)
        time.sleep(2.5)
        wrong = service_pb2.ModelInferRequest(model_name="other", id="mine")
        stub = service_pb2_grpc.GRPCInferenceServiceStub(held.enter_context(dial(serving)))
        (answer,) = stub.ModelStreamInfer(iter([wrong]), timeout=30)
        assert "model 'other' is not served" in answer.error_message


def test_calls_that_break_off_leave_no_line(serving: Serving) -> None:
    said = serving.said
    request = service_pb2.ModelInferRequest(model_name="id3pm")
    with dial(serving) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for number in range(1500):
            call = stub.ModelInfer.future(request)
            if number % 3:
                time.sleep(0.0005 * (number % 3))
            call.cancel()
    assert serving.said == said


def health(channel: Any, service: str = "") -> int:
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    sent = HealthCheckRequest(service=service).SerializeToString()
    return int(HealthCheckResponse.FromString(check(sent, timeout=30)).status)


@pytest.mark.parametrize("service", ["", "live", "id3pm", "face_embedding", "inference.GRPCInferenceService"])
def test_grpc_probes_are_told_the_truth(serving: Serving, service: str) -> None:
    with dial(serving) as channel:
        assert health(channel, service) == SERVING


def test_a_grpc_probe_of_something_else_is_not_found(serving: Serving) -> None:
    with dial(serving) as channel, pytest.raises(grpc.RpcError) as caught:
        health(channel, "other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with dial(serving) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff", timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_other_signals_end_nothing(serving: Serving) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        serving.process.send_signal(number)
    wait_until(lambda: "reloaded: the access log is opened anew" in serving.said, 10)
    log: Path = serving.access_log  # type: ignore[attr-defined]
    log.rename(log.with_suffix(".1"))
    serving.process.send_signal(signal.SIGHUP)
    image(serving)
    wait_until(log.exists, 10)


@pytest.fixture
def own(repository: Path, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(*options: str) -> Serving:
        started.append(Serving(repository, *options))
        return started[-1]

    yield start
    for running in started:
        running.kill()


def test_one_service_is_told_of_lost_sockets_and_new_tokens_and_ends_in_time(
    own: Callable[..., Serving], tmp_path: Path
) -> None:
    """One start for what would each need one: the end is last, with a reader who takes nothing."""
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TOKENS.format(name="one", token="1" * 20))
    running = own(f"--tokens={tokens}", "--drain-timeout=3")

    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return ask(running, "GET", "/v2/models/id3pm", headers=headers)[0]

    assert (status("1" * 20), status("2" * 20)) == (200, 401)
    tokens.write_text("nonsense")
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the tokens stay as they were" in running.said, 10)
    assert status("1" * 20) == 200
    tokens.write_text(TOKENS.format(name="two", token="2" * 20))
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the tokens are read again" in running.said, 10)
    assert (status("1" * 20), status("2" * 20)) == (401, 200)

    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        states = (HealthCheckResponse.FromString(told).status for told in watch(b"", timeout=120))
        assert next(states) == SERVING
        (socket_file,) = (
            path for path in Path("/tmp").glob("id3pm-serving-*/metrics") if owner(path) == running.process.pid
        )
        socket_file.unlink()
        assert next(states) == NOT_SERVING
        wait_until(lambda: "tritonserver takes no metrics connections" in running.said, 20)
        assert next(states) == SERVING
    assert "ready again after" in running.said

    body = {"embedding": [0.1] * 128, "seed": 1, "steps": 1000, "sr_steps": 1000}
    head = "POST /v2/models/id3pm/generate_stream HTTP/1.1\r\nHost: a\r\n"
    content = json.dumps(body).encode()
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", running.http_port))
        head += f"Authorization: Bearer {'2' * 20}\r\nContent-Length: {len(content)}\r\n\r\n"
        reader.sendall(head.encode() + content)
        time.sleep(1.0)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 1, "its work was broken off"
        assert time.monotonic() - began < 3 + 10, "what docker stop --time must allow"
    assert "3 s were over" in running.said and "Traceback" not in running.said


def owner(socket_file: Path) -> int:
    """The process that serves with this folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{socket_file.parent}/" in (process / "cmdline").read_text().replace("\0", " ") + "/":
                return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
