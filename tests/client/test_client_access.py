"""Tokens, headers and certificates, over real gRPC."""

from __future__ import annotations

import asyncio
import gc
import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from id3pm_client import AccessDeniedError, AsyncClient, Client, ConnectionFailedError, Retry
from id3pm_client._connection import Connection, Security, is_loopback
from tests.client.test_client_grpc import Service

VECTOR = np.array([0.5, 1.5], np.float32)
TOKEN = "secret-of-the-test"


class TokenService(Service):
    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "send a token")
        return super().ModelInfer(request, context)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for localhost, which also serves as its own authority."""
    folder = tmp_path_factory.mktemp("certificates")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(params=["server certificate", "both certificates"])
def secure(request: pytest.FixtureRequest, pems: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """URL of a server that speaks TLS and wants a token, and the settings that it takes."""
    mutual = request.param == "both certificates"
    key, certificate = (pems / "key.pem").read_bytes(), (pems / "cert.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)], certificate if mutual else None, mutual)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(TokenService(), server)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    settings: dict[str, Any] = {"ssl": True, "root_certificates": pems / "cert.pem"}
    if mutual:
        settings.update(client_certificate=pems / "cert.pem", client_key=pems / "key.pem")
    yield f"localhost:{port}", settings
    server.stop(0).wait()


def test_a_token_goes_over_tls_with_every_request(secure: tuple[str, dict[str, Any]]) -> None:
    url, settings = secure

    async def main() -> int:
        async with AsyncClient(url, token=TOKEN, **settings) as client:
            return (await client.generate(VECTOR, 3)).seed

    with Client(url, token=TOKEN, **settings) as client:
        assert client.generate(VECTOR, 2).seed == 2
        assert client.ping()["denoiser_64"] == {"active": 0}
    assert asyncio.run(main()) == 3


def test_a_wrong_token_or_none_is_access_denied_and_never_shown(secure: tuple[str, dict[str, Any]]) -> None:
    url, settings = secure
    for token in (None, "wrong-secret"):
        with Client(url, token=token, **settings) as client, pytest.raises(AccessDeniedError) as caught:
            client.generate(VECTOR, 2)
        assert str(caught.value) == "send a token"


def test_without_its_certificates_nobody_connects(secure: tuple[str, dict[str, Any]]) -> None:
    url, settings = secure
    without = {"ssl": True} if "client_key" not in settings else {**settings, "client_key": None}
    without["client_certificate"] = None
    with (
        Client(url, token=TOKEN, retry=Retry(limit=0), **without) as client,
        pytest.raises(ConnectionFailedError),
    ):
        client.generate(VECTOR, 2, timeout_s=10)


def test_a_token_may_go_unencrypted_within_the_machine() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(TokenService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}", token=TOKEN) as client:
        assert client.generate(VECTOR, 2).seed == 2
    server.stop(0).wait()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.8.0.1:1", True),
        ("[::1]:1", True),
        ("unix:/run/triton.sock", True),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_what_stays_on_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_secrets_are_not_in_what_is_printed() -> None:
    security = Security(ssl=True, token=TOKEN, headers={"x-key": "another"})
    connection = Connection("a:1", security)
    assert connection.headers == {"authorization": f"Bearer {TOKEN}", "x-key": "another"}
    assert TOKEN not in repr(connection) and "another" not in repr(connection)


@pytest.mark.parametrize("name", ["root_certificates", "client_certificate"])
def test_certificates_that_cannot_be_read_are_named(name: str) -> None:
    both = {"client_certificate": __file__, "client_key": __file__} if name == "client_certificate" else {}
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        Client("127.0.0.1:1", ssl=True, **{**both, name: "none.pem"})
    gc.collect()  # half an object of tritonclient would complain here
