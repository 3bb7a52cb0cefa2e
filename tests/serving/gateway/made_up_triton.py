"""A Triton that is made up and remembers what it was sent, and a gateway before it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from id3pm.serving.gateway.gateway import Gateway
from id3pm.serving.launcher.health import Health


class MadeUpTriton(ThreadingHTTPServer):
    """Answers every request with its `answer`; remembers path, headers and body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (200, {"Content-Type": "application/json"}, b'{"a": 1}')
        self.break_off = False
        self.delay_s = 0.0
        self.address = f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: MadeUpTriton

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, dict(self.headers), body))
        time.sleep(self.server.delay_s)
        if self.server.break_off:
            return
        status, headers, content = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@dataclasses.dataclass
class Front:
    """A gateway and what is around it."""

    triton: MadeUpTriton
    health: Health
    gateway: Gateway
    ports: dict[str, int]

    def http(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, port: str = "http-port"
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=20)
        data = json.dumps(body) if isinstance(body, dict) else body
        chunked = not isinstance(data, (str, bytes, type(None)))
        connection.request(method, path, data, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        answer = response.status, dict(response.headers), response.read()
        connection.close()
        return answer
