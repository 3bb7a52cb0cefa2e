"""What the Dockerfile runs by itself, run without Docker."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

DOCKERFILE = (Path(__file__).parents[2] / "Dockerfile").read_text()


class Server(HTTPServer):
    """Answers as Triton's readiness does."""

    status = 200


class Readiness(BaseHTTPRequestHandler):
    """The one page that counts."""

    server: Server

    def do_GET(self) -> None:  # noqa: N802
        self.send_response(self.server.status if self.path == "/v2/health/ready" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Readiness) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=10)


def health(port: int) -> int:
    """The exit status of the health check, as Docker runs it, for a service on another port."""
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None and "8000" in found[1]
    program, *arguments = json.loads(found[1].replace("8000", str(port)))
    assert program == "python3"
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    return ended.returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_is_the_services_readiness(server: Server, status: int, expected: int) -> None:
    server.status = status
    assert health(server.server_port) == expected


def test_where_nothing_listens_nothing_is_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert health(port) == 1
