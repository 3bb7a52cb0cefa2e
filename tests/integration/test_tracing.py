"""Spans of a request reach an OpenTelemetry collector, under the trace that the caller began."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from services import running
from waiting import wait_until

pytestmark = pytest.mark.server
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_every_request_is_traced_when_asked(repository: Path) -> None:
    spans: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            spans.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
        with running(repository, trace_url=url) as service:
            connection = http.client.HTTPConnection(service.http_url, timeout=60)
            body = json.dumps({"embedding": [0.1] * 128, "seed": 1})
            headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            connection.request("POST", "/v2/models/id3pm_png/generate", body, headers)
            assert connection.getresponse().status == 200
            connection.close()
            wait_until(lambda: any(TRACE.encode() in span and b"super_resolution" in span for span in spans), 20.0)
        collector.shutdown()
