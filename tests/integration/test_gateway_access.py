"""Tokens and TLS on both ports of the running service, with a certificate made for the test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from services import access_of, running
from tritonclient.utils import InferenceServerException

from id3pm.serving.gateway.options import GatewayOptions, Tls
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm.serving.service import Service

pytestmark = pytest.mark.server
PHOTO, BOTH = "photographs-only-1", "photographs-and-vectors"
TOKENS = f"""
[[caller]]
name = "web page"
token = "{PHOTO}"
may_send = ["photo"]
[[caller]]
name = "lab"
token = "{BOTH}"
may_send = ["photo", "vector"]
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    tls = Tls(folder / "certificate.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(tls.key), "-out", str(tls.certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return tls


@pytest.fixture(scope="module")
def service(repository: Path, certificate: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    access = access_of(tmp_path_factory.mktemp("tokens"), TOKENS)
    with running(repository, gateway=GatewayOptions(access=access, tls=certificate)) as service:
        yield service


@pytest.fixture
def https(service: Service, certificate: Tls) -> Callable[..., tuple[int, Any]]:
    context = ssl.create_default_context(cafile=str(certificate.certificate))

    def exchange(path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPSConnection(service.http_url, timeout=30, context=context)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content else None

    return exchange


@pytest.fixture
def grpc(service: Service, certificate: Tls) -> Iterator[Any]:
    client = tritonclient.grpc.InferenceServerClient(
        service.grpc_url, ssl=True, root_certificates=str(certificate.certificate)
    )
    yield client
    client.close()


def status_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return "OK"


def test_over_https_a_token_decides(https: Callable[..., tuple[int, Any]], embedding: np.ndarray) -> None:
    body = {"embedding": embedding.tolist(), "seed": 1}
    for path in ("/v2/models/id3pm_png/generate", "/v2/models/id3pm/generate_stream"):
        if path.endswith("generate"):
            assert https(path, body, BOTH)[0] == 200
        assert https(path, body)[0] == 401
        assert https(path, body, "unknown-token")[0] == 401
        status, answer = https(path, body, PHOTO)
        assert status == 403 and "web page may not send ID vectors" in answer["error"]
    assert https("/v2", token=PHOTO)[0] == 200
    assert https("/v2")[0] == 401
    assert https("/v2/health/ready")[0] == 200


def test_over_grpc_a_token_decides(grpc: Any, embedding: np.ndarray) -> None:
    vector = tritonclient.grpc.InferInput("embedding", [1, 128], "FP32").set_data_from_numpy(embedding[None])
    seed = tritonclient.grpc.InferInput("seed", [1, 1], "INT64").set_data_from_numpy(np.array([[1]], dtype=np.int64))

    def infer(headers: dict[str, str]) -> str:
        return status_of(lambda: grpc.infer("id3pm_png", [vector, seed], headers=headers, client_timeout=30))

    assert infer({"authorization": f"Bearer {BOTH}"}) == "OK"
    assert infer({"authorization": f"Bearer {PHOTO}"}) == "PERMISSION_DENIED"
    assert infer({"authorization": "Bearer unknown-token"}) == "UNAUTHENTICATED"
    assert infer({}) == "UNAUTHENTICATED"
    assert status_of(grpc.get_server_metadata) == "UNAUTHENTICATED"
    assert grpc.is_server_ready() and grpc.is_model_ready("id3pm")


def test_a_grpc_stream_needs_a_token_too(grpc: Any, embedding: np.ndarray) -> None:
    vector = tritonclient.grpc.InferInput("embedding", [1, 128], "FP32").set_data_from_numpy(embedding[None])
    seed = tritonclient.grpc.InferInput("seed", [1, 1], "INT64").set_data_from_numpy(np.array([[1]], dtype=np.int64))
    cases: list[tuple[dict[str, str], Any, str]] = [
        ({}, "StatusCode.UNAUTHENTICATED", "a token is needed"),
        ({"authorization": f"Bearer {PHOTO}"}, None, "may not send ID vectors"),  # this request alone
    ]
    for headers, status, words in cases:
        errors: list[Any] = []
        grpc.start_stream(callback=lambda result, error, errors=errors: errors.append(error), headers=headers)
        with contextlib.suppress(InferenceServerException):  # refused already
            grpc.async_stream_infer("id3pm_png", [vector, seed])
        grpc.stop_stream()
        assert [error.status() for error in errors] == [status] and words in errors[0].message()


def test_without_tls_nothing_is_answered(service: Service) -> None:
    connection = http.client.HTTPConnection(service.http_url, timeout=10)
    connection.request("GET", "/v2/health/live")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()
    client = tritonclient.grpc.InferenceServerClient(service.grpc_url)
    assert status_of(lambda: client.is_server_live(client_timeout=5)) == "UNAVAILABLE"
    client.close()


def test_triton_itself_has_no_port_and_no_other_user_reaches_it(service: Service) -> None:
    """Else whoever has an account on this machine could ask it past the gateway, without a token."""
    triton = psutil.Process(service.server.pid)
    for process in (triton, *triton.children(recursive=True)):
        assert [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN] == []
    for url in (service.server.http_url, service.server.grpc_url, service.server.metrics_url):
        path = Path(url.removeprefix("unix:"))
        assert path.is_socket() and path.parent.stat().st_mode & 0o077 == 0
    if os.geteuid() != 0:
        return
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for user, outcome in ((65534, b"PermissionError"), (0, b"")):
        command = ["/usr/bin/env", "python3", "-I", "-c", connect, service.server.http_url.removeprefix("unix:")]
        done = subprocess.run(command, user=user, group=user, capture_output=True, timeout=60, check=False)
        assert (outcome in done.stderr) and (done.returncode == 0) == (user == 0), done.stderr


def test_triton_keeps_working_in_a_folder_whose_name_is_long(repository: Path, tmp_path: Path) -> None:
    """A Unix socket's path has 107 bytes at most."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        server = TritonServer(
            repository, ServerSettings(threads=1, start_timeout_s=60, drain_timeout_s=5), private=True
        )
        try:
            with server:
                assert server.grpc_url.startswith("unix:/tmp/") and server.ping("denoiser_64")["active"] == 0
                sockets = Path(server.http_url.removeprefix("unix:")).parent
        finally:
            server.kill()
    assert not sockets.exists() and list(folder.iterdir()) == []
