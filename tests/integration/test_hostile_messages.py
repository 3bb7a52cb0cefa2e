"""Messages with false shapes, types and sizes are refused on HTTP and gRPC, in time; the service continues."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from id3pm.formats.images import encode_png
from id3pm_client import Client, InvalidRequestError

pytestmark = pytest.mark.server
SERVICE = "/inference.GRPCInferenceService"
ENSEMBLES = ["id3pm", "id3pm_png", "denoiser_64"]
MAX_MESSAGE = 1500


@pytest.fixture(autouse=True)
def a_good_image_stays_the_same(public: Any, embedding: np.ndarray) -> Iterator[None]:
    def image() -> Any:
        return public.infer("id3pm", ["image"], embedding=embedding[None], seed=np.array([[3]]))["image"]

    before = image()
    yield
    np.testing.assert_array_equal(image(), before)
    assert public.http("/v2/health/ready")[0] == 200
    assert public.metrics()["id3pm_gateway_restarts_total"] == 0, "a request brought the server down"


def message(model: str, name: str, shape: list[int], raw: bytes, datatype: str = "FP32") -> Any:
    made = service_pb2.ModelInferRequest(model_name=model)
    made.inputs.add(name=name, datatype=datatype, shape=shape)
    made.raw_input_contents.append(raw)
    return made


def unary(public: Any, request: Any) -> tuple[str, str]:
    try:
        public.grpc._client_stub.ModelInfer(request, timeout=20)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def streamed(public: Any, request: Any) -> tuple[str, str]:
    (answer,) = public.grpc._client_stub.ModelStreamInfer(iter([request]), timeout=20)
    return "INVALID_ARGUMENT" if answer.error_message else "OK", answer.error_message


@pytest.mark.parametrize("way", [unary, streamed])
@pytest.mark.parametrize("size", [2**62, 2**62 + 128])
def test_shapes_that_have_no_bytes_reach_no_stage(
    public: Any, way: Callable[[Any, Any], tuple[str, str]], size: int
) -> None:
    """An 80-byte request of this kind killed a stub; three a second kept the service down."""
    raw = bytes(4 * (size % 2**32)) if size % 2**32 < 1000 else b""
    for model in ENSEMBLES:
        for name in ("embedding", "attributes"):
            code, text = way(public, message(model, name, [1, size], raw))
            assert code == "INVALID_ARGUMENT" and name in text and "at most" in text, (code, text)
    for model, name in (("face_embedding", "photo"), ("id3pm_photo", "photo")):
        code, text = way(public, message(model, name, [1, size], b"", "BYTES"))
        assert code == "INVALID_ARGUMENT" and "must be [images, 1]" in text


@pytest.mark.parametrize("letter", ["\nAt:", "in ensemble '', "])
def test_a_name_of_any_letters_costs_no_time_and_is_not_repeated(public: Any, letter: str) -> None:
    name = (letter * 900_000)[:900_000]
    began = time.monotonic()
    for code, text in (
        unary(public, message("id3pm", name, [1, 1], b"")),
        streamed(public, message("id3pm", name, [1, 1], b"")),
        unary(public, service_pb2.ModelInferRequest(model_name=name)),
        unary(public, service_pb2.ModelInferRequest(model_name="id3pm", model_version=name)),
        unary(public, service_pb2.ModelInferRequest(model_name="id3pm", id=name)),
    ):
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND") and len(text) <= MAX_MESSAGE
    assert time.monotonic() - began < 10.0
    name = name[:200_000]
    tensor = {"name": name, "shape": [1, 1], "datatype": "FP32", "data": [1]}
    for path, body in (("infer", {"inputs": [tensor]}), ("generate", {name: 1}), ("generate_stream", {name: 1})):
        status, content = public.http(f"/v2/models/id3pm/{path}", body)
        assert status == 400 and len(json.loads(content)["error"]) <= MAX_MESSAGE


@pytest.mark.parametrize("path", ["infer", "generate", "generate_stream"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "\\ud800"}',
        b'{"embedding": [1e400], "x": 1e400}',
        '{"embedding": [1]}'.encode("utf-16"),
        b'{"embedding": [1], "retry after ' + b"9" * 400 + b' s": 1}',
        b'{"embedding": [1], "steps\\u0000": 1}',
        b'{"embedding": [1], "parameters": {"x-steps": "3\\u0000x"}}',
        b"",
    ],
)
def test_bodies_that_are_the_callers_mistake_are_400(public: Any, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection(public.server.http_url, timeout=20)
    connection.request("POST", f"/v2/models/id3pm/{path}", body)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    assert (answer.status, content["code"]) == (400, "invalid_argument"), content
    assert answer.headers["Retry-After"] is None and "in ensemble" not in content["error"]


@pytest.mark.parametrize("number", ["3_0", "\u0663", "0x3"], ids=lambda number: ascii(number))
def test_what_python_takes_for_a_number_is_none_here(public: Any, embedding: np.ndarray, number: str) -> None:
    for name in ("steps", "eta"):
        with pytest.raises(InferenceServerException, match=f"{name}=.*expected a"):
            public.infer("id3pm", ["image"], embedding=embedding[None], parameters={name: number})


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer"])
def test_bytes_that_are_no_message_are_the_callers_mistake(public: Any, method: str) -> None:
    with grpc.insecure_channel(public.server.grpc_url) as channel:
        for garbage in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"{SERVICE}/{method}")(garbage, timeout=20)
            assert caught.value.code().name == "INVALID_ARGUMENT", caught.value.details()


def test_a_version_that_is_not_served_is_neither_ready_nor_described(public: Any) -> None:
    for path in ("ready", "", "config", "stats"):
        known, unknown = (f"/v2/models/id3pm/versions/{version}/{path}".rstrip("/") for version in ("1", "99"))
        assert public.http(known)[0] == 200
        status, content = public.http(unknown)
        assert status == 404 and "has no version '99': send 1" in json.loads(content)["error"]
    status, content = public.http("/v2/models/id3pm/versions/99/infer", {"inputs": []})
    assert status == 404
    client = public.grpc
    assert client.is_model_ready("id3pm", "1") and not client.is_model_ready("id3pm", "99")
    for ask in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        ask("id3pm", "1")
        with pytest.raises(InferenceServerException, match="has no version '99'"):
            ask("id3pm", "99")


FORGED = 'id3pm-00 {"code": "queue_full", "retry_after_s": 9} the deadline passed; retry after 9 s'


def over_http(public: Any, path: str) -> dict[str, Any]:
    """The error of a request whose sampler, id and error tag are forged, as its data."""
    body = {"embedding": [0.1] * 128, "sampler": FORGED, "id": FORGED, "x-id3pm-error-tag": "id3pm-00"}
    connection = http.client.HTTPConnection(public.server.http_url, timeout=20)
    connection.request("POST", f"/v2/models/{path}", json.dumps(body))
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    assert (answer.status, answer.headers["Retry-After"], content.pop("status")) == (400, None, "INVALID_ARGUMENT")
    return dict(content)


def forged_message() -> Any:
    made = service_pb2.ModelInferRequest(model_name="id3pm", id=FORGED)
    made.inputs.add(name="embedding", datatype="FP32", shape=[1, 128])
    made.raw_input_contents.append(np.full(128, 0.1, np.float32).tobytes())
    made.parameters["sampler"].string_param = FORGED
    made.parameters["x-id3pm-error-tag"].string_param = "id3pm-00"
    return made


def over_grpc(public: Any) -> dict[str, Any]:
    with pytest.raises(grpc.RpcError) as caught:
        public.grpc._client_stub.ModelInfer(forged_message(), timeout=20)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    fields = dict(caught.value.trailing_metadata())
    assert "id3pm-retry-after-s" not in fields
    return {"error": caught.value.details(), "code": fields["id3pm-code"]}


def over_a_grpc_stream(public: Any) -> dict[str, Any]:
    (answer,) = public.grpc._client_stub.ModelStreamInfer(iter([forged_message()]), timeout=20)
    parameters = answer.infer_response.parameters
    assert "retry_after_s" not in parameters
    return {"error": answer.error_message, "code": parameters["code"].string_param}


def test_what_a_caller_writes_forges_no_code(public: Any) -> None:
    """The stage quotes the sampler; id and tag go through Triton, too."""
    ways: list[Callable[[], dict[str, Any]]] = [
        lambda: over_http(public, "id3pm/generate"),
        lambda: over_http(public, "id3pm/generate_stream"),
        lambda: over_grpc(public),
        lambda: over_a_grpc_stream(public),
    ]
    for way in ways:
        said = way()
        assert said["code"] == "invalid_argument" and set(said) == {"code", "error"}, said
        assert said["error"].startswith("sampler='id3pm-00 {") and "choose one of ddpm" in said["error"]


def test_the_code_of_a_stage_comes_through_on_every_way(public: Any) -> None:
    photo = base64.b64encode(encode_png(np.full((64, 64, 3), 128, np.uint8))).decode()
    for model in ("id3pm_photo/generate", "id3pm_photo/generate_stream", "face_embedding/generate"):
        status, content = public.http(f"/v2/models/{model}", {"photo": photo})
        assert (status, json.loads(content)["code"]) == (400, "no_face"), content
    with Client(public.server.grpc_url) as client, pytest.raises(InvalidRequestError) as caught:
        client.embed(base64.b64decode(photo))
    assert caught.value.code == "no_face" and "id3pm-" not in str(caught.value)
