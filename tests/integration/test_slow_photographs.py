"""Photographs that take long to decode cost time for their sender only."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from services import access_of, running
from waiting import wait_until

from id3pm.formats.photo_decoding import decode_photo
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.control import connection_to, control
from id3pm.serving.protocol.limits import MAX_WAITING_PHOTO_S
from id3pm.serving.service import Service

pytestmark = pytest.mark.server
HONEST = Path(__file__).parents[2] / "demo" / "astronaut.jpg"
WAIT_S = 60.0
HOG, OTHER = "hog-has-this-token", "other-has-another-token"
TOKENS = "\n".join(
    f'[[caller]]\nname = "{name}"\ntoken = "{token}"\nmay_send = ["photo"]'
    for name, token in (("hog", HOG), ("other", OTHER))
)


def slow_jpeg(side: int) -> bytes:
    """A grey square in 64 passes: some hundred kilobytes that take seconds."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (64 - data.count(b"\xff\xda")) + data[-2:]


SLOW = slow_jpeg(4500)


@pytest.fixture(scope="module")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = GatewayOptions(access=access_of(tmp_path_factory.mktemp("tokens"), TOKENS))
    with running(repository, gateway=options) as service:
        yield service


def post(service: Service, token: str, photo: bytes, model: str = "id3pm_photo_png") -> tuple[int, Any]:
    body: dict[str, Any] = {"photo": base64.b64encode(photo).decode()}
    if model != "face_embedding":
        body["seed"] = 1
    connection = connection_to(service.http_url, WAIT_S)
    try:
        connection.request("POST", f"/v2/models/{model}/generate", json.dumps(body), bearer(token))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def state(service: Service) -> dict[str, Any]:
    return control(service.server.http_url, "face_embedding", "ping")


@contextlib.contextmanager
def connections_that_leave(service: Service, number: int) -> Iterator[None]:
    """So many requests with slow photographs, whose callers leave at the end."""
    body = json.dumps({"photo": base64.b64encode(SLOW).decode(), "seed": 1}).encode()
    host, port = service.http_url.rsplit(":", 1)
    lines = ["POST /v2/models/id3pm_photo_png/generate HTTP/1.1", f"Host: {service.http_url}"]
    lines += [f"Authorization: Bearer {HOG}", f"Content-Length: {len(body)}", "", ""]
    with contextlib.ExitStack() as opened:
        for _ in range(number):
            connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
            connection.sendall("\r\n".join(lines).encode() + body)
        yield


def embedding_of(service: Service, photo: bytes) -> list[float]:
    status, answer = post(service, OTHER, photo, "face_embedding")
    assert status == 200
    vector: list[float] = answer["embedding"]
    return vector


def test_photographs_of_callers_who_have_left_are_dropped_and_their_decoding_stops(service: Service) -> None:
    known = embedding_of(service, HONEST.read_bytes())
    began = time.monotonic()
    decode_photo(SLOW)
    one_s = time.monotonic() - began
    with connections_that_leave(service, 5):
        wait_until(lambda: state(service)["in_flight"] == 5, WAIT_S)
    left = time.monotonic()
    wait_until(lambda: state(service)["in_flight"] == 0, WAIT_S)
    assert time.monotonic() - left < 1.0 + 2.0 * one_s, "five of them would take longer"
    assert embedding_of(service, HONEST.read_bytes()) == known


def test_an_honest_photograph_overtakes_slow_ones(service: Service) -> None:
    with connections_that_leave(service, 6):
        wait_until(lambda: state(service)["in_flight"] == 6, WAIT_S)
        status, answer = post(service, OTHER, HONEST.read_bytes())
        assert status == 200 and len(answer["png"]) > 1000
        assert state(service)["in_flight"] >= 3
    wait_until(lambda: state(service)["in_flight"] == 0, WAIT_S)


def test_work_that_photographs_would_make_is_bounded_and_others_keep_their_share(service: Service) -> None:
    with connections_that_leave(service, 60):
        wait_until(lambda: state(service)["backlog_s"] > 0.9 * MAX_WAITING_PHOTO_S, WAIT_S)
        time.sleep(0.2)  # what is on its way finds the queue full
        status, answer = post(service, HOG, SLOW, "face_embedding")
        assert status == 503 and "s of work; retry after" in answer["error"]
        embedding_of(service, HONEST.read_bytes())
    wait_until(lambda: state(service)["in_flight"] == 0, WAIT_S)
