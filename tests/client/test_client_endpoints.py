"""Connections to a server: proxies, ports of other protocols, and consecutive event loops."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm_client import AsyncClient, Client, ClientError, ConnectionFailedError, Retry, WrongEndpointError
from id3pm_client._cli import main
from id3pm_client._proxy import proxy_note
from tests.client.conftest import FakeAsyncTransport, FakeServer, echo
from tests.client.test_client_grpc import Service, service  # noqa: F401 - a fixture

VECTOR = np.ones(2, np.float32)
TWICE = """
import asyncio, sys, warnings
warnings.simplefilter("error")
from id3pm_client import AsyncClient
client = AsyncClient(sys.argv[1])
async def main(seed):
    events = [event async for event in client.stream([0.5, 1.5], seed, timeout_s=10)]
    return (await client.generate([0.5, 1.5], [seed, seed + 1], timeout_s=10))[0].seed, events[-1].seed
print(asyncio.run(main(1)), asyncio.run(main(3)), flush=True)
async def end():
    await client.close()
asyncio.run(end())
"""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """An HTTP proxy that refuses everything, set in the environment; what it was asked."""
    asked: list[bytes] = []
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.settimeout(5)
                        asked.append(connection.recv(1000))
                        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://someone:secret@127.0.0.1:{listening.getsockname()[1]}")
        yield asked
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_server_on_this_machine_is_reached_without_a_proxy(
    service: tuple[Service, str],  # noqa: F811
    proxy: list[bytes],
    host: str,
) -> None:
    url = f"{host}:{service[1].rpartition(':')[2]}"

    async def main() -> Any:
        async with AsyncClient(url) as client:
            return await client.generate(VECTOR, 2, timeout_s=10)

    with Client(url) as client:
        assert client.generate(VECTOR, 1, timeout_s=10).seed == 1
    assert asyncio.run(main()).seed == 2
    assert not proxy


def test_elsewhere_the_message_names_the_proxy(proxy: list[bytes]) -> None:
    async def main() -> None:
        async with AsyncClient("203.0.113.9:8001", retry=Retry(0)) as client:
            await client.generate(VECTOR, 2, timeout_s=10)

    message = r"the proxy grpc_proxy=http://127\.0\.0\.1:\d+: to go without it, add 203\.0\.113\.9 to no_proxy"
    with Client("203.0.113.9:8001", retry=Retry(0)) as client:
        for call in (lambda: client.generate(VECTOR, 1, timeout_s=10), client.ping, lambda: asyncio.run(main())):
            with pytest.raises(ConnectionFailedError, match=message) as caught:
                call()
            assert "secret" not in str(caught.value)
    assert b"203.0.113.9" in proxy[0]


@pytest.mark.parametrize(
    ("exceptions", "host", "noted"),
    [
        ("", "gpu.example.org", True),
        ("example.org", "gpu.example.org", False),
        ("other.org, .example.org", "GPU.example.org", False),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("nonsense/8", "11.1.2.3", True),
        ("", "127.0.0.2", False),
        ("", "[::1]", False),
        ("", "unix", False),
    ],
)
def test_no_proxy_is_read_as_grpc_reads_it(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, host: str, noted: bool
) -> None:
    for name in ("no_grpc_proxy", "grpc_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    assert ("https_proxy=proxy:3128" in proxy_note(f"{host}:8001")) is noted
    monkeypatch.delenv("https_proxy")
    assert proxy_note(f"{host}:8001") == ""


@contextlib.contextmanager
def http_port() -> Iterator[str]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return None

    # As `id3pm serve` answers what is not HTTP/1: with an HTTP/1 error.
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_http_port_is_named_at_once(encrypted: bool) -> None:
    message = "does not speak TLS" if encrypted else "(is an HTTP port|does not speak gRPC).*gRPC port, usually 8001"
    with http_port() as url:

        async def main() -> None:
            async with AsyncClient(url, ssl=encrypted) as client:
                await client.generate(VECTOR, 1)

        with Client(url, ssl=encrypted) as client:
            for call in (lambda: client.generate(VECTOR, 1), client.ping, lambda: asyncio.run(main())):
                started = time.monotonic()
                with pytest.raises(WrongEndpointError, match=f"{url} {message}"):
                    call()
                assert time.monotonic() - started < 6.0, "without the retries of a server that may come back"


def test_once_it_has_answered_a_wrong_protocol_is_a_restart_behind_a_load_balancer(client: Any, server: Any) -> None:
    client.generate(VECTOR, 1)
    answers = [WrongEndpointError("a:1 is an HTTP port"), None]

    def answer(call: Any) -> Any:
        error = answers.pop(0)
        if error is not None:
            raise error
        return echo(call)

    server.answer = answer
    assert client.generate(VECTOR, 2).seed == 2


def test_an_async_client_outlives_its_event_loop(service: tuple[Service, str]) -> None:  # noqa: F811
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", TWICE, service[1]], capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "(1, 1) (3, 3)\n"
    assert "Event loop is closed" not in ended.stderr
    assert "never awaited" not in ended.stderr
    assert ended.returncode == 0


def test_an_async_client_of_an_open_event_loop_says_what_to_do(server: FakeServer) -> None:
    client = AsyncClient(transport=FakeAsyncTransport(server))
    first = asyncio.new_event_loop()
    first.run_until_complete(client.generate(VECTOR, 1))

    async def second() -> None:
        for call in (client.generate(VECTOR, 2), client.ping(), client.is_ready(), client.close()):
            with pytest.raises(ClientError, match="make one AsyncClient for each event loop, or use Client"):
                await call
        with pytest.raises(ClientError, match="another event loop"):
            async for _ in client.stream(VECTOR, 2):
                pass

    asyncio.run(second())
    assert first.run_until_complete(client.generate(VECTOR, 3)).seed == 3, "it still works where it belongs"
    first.close()
    assert asyncio.run(client.generate(VECTOR, 4)).seed == 4


@pytest.mark.parametrize("command", ["generate", "embed", "stream", "blend"])
def test_after_a_second_the_command_line_says_what_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"not looked at")
    words = [str(photo), str(photo)] if command == "blend" else ["--photo", str(photo)]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main(["--url", url, "--timeout", "2.5", command, *words, "--out", str(tmp_path / "out")]) == 4
    told = capsys.readouterr().err
    assert f"waiting for {url}: Connection refused" in told
    assert "no answer within 2.5 s; the last attempt: failed to connect" in told


def test_a_server_that_says_nothing_is_named_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "v.npy", VECTOR)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ["generate", "--embedding", str(tmp_path / "v.npy"), "--out", str(tmp_path)]
        assert main(["--url", url, "--timeout", "2", *words]) == 4
    assert f"waiting for {url}" in capsys.readouterr().err


def test_the_command_line_names_an_http_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with http_port() as url:
        assert main(["--url", url, "ping"]) == 3
    assert "this client needs the server's gRPC port, usually 8001" in capsys.readouterr().err


def test_a_program_hears_of_it_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ClientError):
            client.generate(VECTOR, [1, 2, 3], timeout_s=2.5)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1, "once, though three images wait"
    assert told[0].startswith(f"waiting for {url}: failed to connect")
