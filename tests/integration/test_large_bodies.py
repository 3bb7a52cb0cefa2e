"""Requests as large as the gateway lets through: refused in time, and the service and a neighbour do not notice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from services import running
from tritonclient.grpc import service_pb2

from id3pm.serving.protocol.limits import MAX_BODY
from id3pm.serving.service import Service

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")]
ROOM = MAX_BODY - 256 * 1024  # for the rest of a message
LONGEST_PING_S = (
    5.0  # seen from a process that is busy with these bodies itself; what is asked alone takes milliseconds
)
EMPTY = b"\0\0\0\0"


@pytest.fixture(scope="module")
def service(repository: Any) -> Iterator[Service]:
    """With the limits that it has in production."""
    with running(repository) as service:
        yield service


class PingLoop:
    """Asks a stage for a sign of life all the time; remembers the longest wait in seconds."""

    def __init__(self, service: Service) -> None:
        self.longest_s = 0.0
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            began = time.monotonic()
            self._service.server.ping("denoiser_64", timeout_s=60.0)
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)


@pytest.fixture(autouse=True)
def other_requests_are_served(
    service: Service, public: Any, neighbour: dict[str, np.ndarray], alone: np.ndarray
) -> Iterator[None]:
    answer, pings = public.start("id3pm", ["image"], **neighbour), PingLoop(service)
    yield
    np.testing.assert_array_equal(answer()["image"], alone)
    pings.end()
    assert public.metrics()["id3pm_gateway_restarts_total"] == 0, "a request brought the server down"
    assert pings.longest_s < LONGEST_PING_S


def refusal(
    public: Any,
    embedding: np.ndarray,
    model: str,
    name: str,
    datatype: str,
    shape: Any,
    data: bytes,
    code: str = "INVALID_ARGUMENT",
) -> str:
    """What a request with this input is answered, which must be an error of its sender's."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.outputs.add(name="status" if name == "control" else "receipt" if model == "id3pm" else "image_64")
    good = {} if name == "control" else {"seed": ("INT64", [1, 1], np.array([1]).tobytes())}
    if name not in ("control", "embedding"):
        good["embedding"] = ("FP32", [1, 128], embedding.tobytes())
    for key, (kind, size, raw) in {**good, name: (datatype, shape, data)}.items():
        request.inputs.add(name=key, datatype=kind, shape=size)
        request.raw_input_contents.append(raw)
    with pytest.raises(Exception) as caught:  # whatever class gRPC gives it
        public.grpc._client_stub.ModelInfer(request, timeout=60)
    assert caught.value.code().name == code, caught.value  # type: ignore[attr-defined]
    return str(caught.value.details())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["attributes", "embedding"])
def test_a_vector_of_millions_is_refused_by_its_length(public: Any, embedding: np.ndarray, name: str) -> None:
    count = ROOM // 4
    for value in (0, 0x3F):
        said = refusal(public, embedding, "id3pm", name, "FP32", [1, count], bytes([value]) * (4 * count))
        assert f"{name} has {count} numbers: at most" in said


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("denoiser_64", "INVALID_ARGUMENT", "control has {} strings: at most"),
        ("super_resolution", "INVALID_ARGUMENT", "control has {} strings: at most"),
        ("face_embedding", "PERMISSION_DENIED", "face_embedding takes none here"),
    ],
)
def test_millions_of_words_are_refused(public: Any, embedding: np.ndarray, model: str, code: str, words: str) -> None:
    count = ROOM // 4 - 1
    said = refusal(
        public, embedding, model, "control", "BYTES", [1, count], b"\4\0\0\0ping" + EMPTY * (count - 1), code
    )
    assert words.format(count) in said


@pytest.mark.parametrize(
    ("name", "letter"),
    [("attribute_values", b"["), ("sr_sampler", b"\0")],
)
def test_a_text_of_megabytes_is_refused_by_its_length(
    public: Any, embedding: np.ndarray, name: str, letter: bytes
) -> None:
    data = ROOM.to_bytes(4, "little") + letter * ROOM
    said = refusal(public, embedding, "id3pm", name, "BYTES", [1, 1], data)
    assert f"{name} has a text of {ROOM} bytes: at most" in said and len(said) < 2000


@pytest.mark.parametrize(
    ("strings", "shape"),
    [(EMPTY * (ROOM // 4), [1, 1]), (b"", [1, 1]), (b"\xff\xff\xff\x7f", [1, 1]), (b"\x02\0", [1, 1])],
    ids=["more", "none", "longer", "cut"],
)
def test_strings_that_are_not_what_the_shape_says_are_refused(
    public: Any, embedding: np.ndarray, strings: bytes, shape: list[int]
) -> None:
    assert "sampler" in refusal(public, embedding, "id3pm", "sampler", "BYTES", shape, strings)


@pytest.mark.parametrize("name", ["attributes", "sampler"])
def test_parameters_of_megabytes_are_refused(public: Any, embedding: np.ndarray, name: str) -> None:
    value = "[" * (ROOM - 10_000)
    body = {"inputs": [], "parameters": {name: value}}
    body["inputs"] = [
        {"name": "embedding", "shape": [1, 128], "datatype": "FP32", "data": embedding.tolist()},
        {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [1]},
    ]
    status, content = public.http("/v2/models/id3pm/infer", json.dumps(body).encode())
    said = json.loads(content)["error"]
    assert status == 400 and "characters together: at most" in said, said[:300]


def test_json_of_millions_of_values_is_refused_unread(public: Any) -> None:
    status, content = public.http("/v2/models/id3pm/generate", b'{"seed":[' + b"0," * (ROOM // 2 - 10_000) + b"0]}")
    said = json.loads(content)["error"]
    assert status == 400 and "commas and backslashes: at most" in said, said[:300]


def test_a_photograph_of_nothing_but_spaces_is_refused_in_time(public: Any) -> None:
    photo = b"A " * (16 * 2**20)
    with pytest.raises(Exception, match="photo"):
        public.infer("face_embedding", ["embedding"], photo=np.array([[photo]], dtype=object))
