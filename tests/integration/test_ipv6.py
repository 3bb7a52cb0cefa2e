"""A service on IPv6 addresses, as in a cluster that has no others."""

from __future__ import annotations

import contextlib
import http.client
import socket
from pathlib import Path

import numpy as np
import pytest
from services import running

from id3pm_client import Client

pytestmark = pytest.mark.server


def status(host: str, port: int, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def test_all_ports_answer_on_ipv6(repository: Path, embedding: np.ndarray) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(repository, host="::", insecure=True) as service:
        assert service.grpc_url.startswith("[::1]:")
        with Client(service.grpc_url) as client:
            image = client.generate(embedding, 1, steps=2)
            assert image.image.size == (256, 256)
        assert status("::1", service.ports["http-port"], "/v2/health/ready") == 200
        assert status("::1", service.ports["metrics-port"], "/metrics") == 200
