"""The gateway reads a request as Triton does, or refuses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.auth import ANYONE, MODELS, Access
from id3pm.serving.gateway.json_body import MAX_PARTS, parse_object
from id3pm.serving.gateway.request import Request, json_length, read_json, read_message
from id3pm.serving.protocol.status import RefusedError

SEED = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [1]}


def element(text: str) -> bytes:
    return len(text).to_bytes(4, "little") + text.encode()


def read(body: bytes, length: str | None = None, *, model: str = "denoiser_64", generate: bool = False) -> Request:
    return read_json(model, "", body, json_length(length, len(body)), generate=generate)


def refused(code: str, body: bytes, length: str | None = None, *, generate: bool = False) -> str:
    with pytest.raises(RefusedError) as caught:
        read(body, length, generate=generate).check(ANYONE)
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize("body", [b'{"seed": 1}', b' \n{"seed":1, "id": ""}', b"{}"])
def test_a_request_without_id_gets_one(body: bytes) -> None:
    request = read(body, generate=True)
    assert len(request.id) == 32 and request.message.id == request.id
    assert [tensor.name for tensor in request.message.inputs] == (["seed"] if b"seed" in body else [])


def test_an_id_stays() -> None:
    request = read(b'{"id": "mine", "eta": 0.5}', model="id3pm", generate=True)
    assert (request.model, request.id, request.control) == ("id3pm", "mine", None)


def test_json_and_binary_tensors_become_the_same_message() -> None:
    seed = {"name": "seed", "shape": [1, 1], "datatype": "INT64"}
    head = json.dumps({"id": "a", "inputs": [{**seed, "parameters": {"binary_data_size": 8}}]}).encode()
    binary = read(head + b"\x01" + bytes(7), str(len(head))).message
    plain = read(json.dumps({"id": "a", "inputs": [{**seed, "data": [[1]]}]}).encode()).message
    generated = read(b'{"id": "a", "seed": 1}', generate=True).message
    assert binary == plain == generated and binary.raw_input_contents[0] == b"\x01" + bytes(7)


def test_a_message_without_id_gets_one_and_keeps_the_rest() -> None:
    message = service_pb2.ModelInferRequest(model_name="id3pm", model_version="1")
    message.inputs.add(name="seed", datatype="INT64", shape=[1, 1])
    message.raw_input_contents.append(bytes(8))
    request = read_message(message.SerializeToString())
    request.check(ANYONE)
    assert (request.model, request.control) == ("id3pm", None) and len(request.id) == 32
    request.message.id = ""
    assert request.message == message


@pytest.mark.parametrize(
    ("body", "length", "reason"),
    [
        (b"", None, "the body is not JSON"),
        (b"[1]", None, "is JSON, but no object"),
        (b'{"seed": 1', None, "the body is not JSON"),
        (b"[" * 100_000, None, "the body is not JSON"),
        (b'{"id": 5}', None, "id=5: must be text"),
        (b'{"id": "' + b"x" * 257 + b'"}', None, "id has 257 characters: at most 256"),
        (b'{"a": 1, "a": 2}', None, "a JSON key is repeated"),
        (b'{"inputs": 1}', None, "inputs: must be a list of objects"),
        (b'{"seed": 1} {"seed": 2}', None, "the body is not JSON: Extra data"),
        ('{"id": "a"}'.encode("utf-16"), None, "the body is not UTF-8 text"),
        ('{"id": "a"}'.encode("utf-32"), None, "the body is not"),
        (b'\xef\xbb\xbf{"id": "a"}', None, "the body is not JSON"),
        (b'{"parameters": []}', None, "parameters=[]: must be an object"),
        (b'{"seed": 1}', None, "key 'seed' is unknown: valid are id, parameters, inputs, outputs"),
        (b'{"inputs": [{"name": "retry after 99999 s"}]}', None, "input 'retry after 99999 s' is unknown"),
        (b'{"inputs": [], "outputs": [{"name": "x"}]}', None, "output 'x' is unknown: valid are image_64"),
        (b"{}", None, "there are no inputs: send embedding"),
        (b"{}", "9", "Inference-Header-Content-Length='9': must be 1 .. 2"),
        (b"{}", "-1", "must be 1 .. 2"),
        (b"{}", "x", "must be 1 .. 2"),
        (b"{}", "9" * 5000, "must be 1 .. 2"),
    ],
)
def test_what_is_no_request_is_refused_with_the_rule(body: bytes, length: str | None, reason: str) -> None:
    assert reason in refused("invalid_argument", body, length)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"no inference\.ModelInferRequest"):
        read_message(b"\xff\xff\xff")
    with pytest.raises(RefusedError, match=r"no inference\.ModelInferRequest"):  # an id that is not UTF-8
        read_message(b"\x0a\x05id3pm\x1a\x02\xff\xfe")


def control(*words: str, binary: bool = False, name: str = "control") -> tuple[bytes, str | None]:
    raw = b"".join(map(element, words))
    tensor: dict[str, Any] = {"name": name, "shape": [1, len(words)], "datatype": "BYTES"}
    tensor |= {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": [list(words)]}
    before = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [before, tensor] if binary else [tensor]}).encode()
    return (head + bytes(8) + raw, str(len(head))) if binary else (head, None)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("op", ["ping", "progress", "watch", "cancel"])
def test_questions_about_a_request_are_open(op: str, binary: bool) -> None:
    body, length = control(op, "x", binary=binary)
    request = read(body, length)
    request.check(ANYONE)
    assert request.control == op and request.message.inputs[-1].name == "control"


@pytest.mark.parametrize("op", ["drain", "", "DRAIN", "dr\u0000ain"])
def test_draining_is_not_for_callers_whatever_the_form(op: str) -> None:
    for binary in (False, True):
        refused("permission_denied", *control(op, "", binary=binary))
    refused("permission_denied", json.dumps({"control": [op, ""]}).encode(), generate=True)
    refused("permission_denied", json.dumps({"control": op}).encode(), generate=True)
    refused("permission_denied", json.dumps({"parameters": {"control": [op, ""]}}).encode(), generate=True)
    for raw in (True, False):
        message = service_pb2.ModelInferRequest(model_name="denoiser_64")
        tensor = message.inputs.add(name="control", datatype="BYTES", shape=[1, 2])
        if raw:
            message.raw_input_contents.append(element(op) + element(""))
        else:
            tensor.contents.bytes_contents.extend([op.encode(), b""])
        with pytest.raises(RefusedError, match="open here are ping"):
            read_message(message.SerializeToString()).check(ANYONE)


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"denoiser_64", "super_resolution", "face_embedding"}))
def test_where_nothing_reads_control_it_opens_nothing(model: str) -> None:
    kinds = {"vector": "photo", "photo": "vector"}
    other = Access(accept=(kinds[MODELS[model] or ""],)).caller(None)
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="control", datatype="BYTES", shape=[1, 2])
    message.raw_input_contents.append(element("ping") + element(""))
    for request in (
        read(b'{"control": "ping"}', model=model, generate=True),
        read_message(message.SerializeToString()),
    ):
        assert request.control is None and len(request.id) == 32, "it is work"
        with pytest.raises(RefusedError, match="callers of this service may not send") as caught:
            request.check(other)
        assert caught.value.code == "permission_denied"
        with pytest.raises(RefusedError, match="'control' is unknown"):
            request.check(ANYONE)
    with pytest.raises(RefusedError, match="'control' is unknown"):
        read(control("ping", "")[0], model=model)


@pytest.mark.parametrize("op", ["ping", "drain"])
def test_the_face_stage_takes_control_from_nobody(op: str) -> None:
    """Its `drain` would end all work with photographs, of every caller."""
    message = service_pb2.ModelInferRequest(model_name="face_embedding")
    message.inputs.add(name="control", datatype="BYTES", shape=[1, 2])
    message.raw_input_contents.append(element(op) + element(""))
    requests = [
        read(json.dumps({"control": [op, ""], "photo": "x"}).encode(), model="face_embedding", generate=True),
        read(control(op, "")[0], model="face_embedding"),
        read_message(message.SerializeToString()),
    ]
    for request in requests:
        with pytest.raises(RefusedError, match="face_embedding takes none here") as caught:
            request.check(ANYONE)
        assert caught.value.code == "permission_denied"


@pytest.mark.parametrize("name", ["control\0", "control\0x", "seed\0"])
def test_a_name_that_triton_would_read_otherwise_is_refused(name: str) -> None:
    """Triton reads names to their first NUL: behind it, `drain` would pass as something else."""
    assert "must be printable" in refused("invalid_argument", json.dumps({name: "drain"}).encode(), generate=True)
    for binary in (False, True):
        assert "is unknown" in refused("invalid_argument", *control("drain", "", binary=binary, name=name))
    message = service_pb2.ModelInferRequest(model_name="denoiser_64")
    message.inputs.add(name=name, datatype="BYTES", shape=[1, 2])
    with pytest.raises(RefusedError, match="is unknown"):
        read_message(message.SerializeToString()).check(ANYONE)


def test_a_second_control_input_cannot_hide_behind_the_first() -> None:
    tensor = {"name": "control", "shape": [1, 2], "datatype": "BYTES"}
    body = json.dumps({"inputs": [{**tensor, "data": [op, ""]} for op in ("ping", "drain")]}).encode()
    assert "sent twice" in refused("invalid_argument", body)
    body = json.dumps({"control": ["ping", ""], "parameters": {"control": ["drain", ""]}}).encode()
    assert "sent twice" in refused("invalid_argument", body, generate=True)


def test_an_unknown_model_is_named_with_those_that_are_served() -> None:
    with pytest.raises(RefusedError, match=r"model 'x' is not served; there are id3pm, .*super_resolution"):
        Request(service_pb2.ModelInferRequest(model_name="x", id="1")).check(ANYONE)


@pytest.mark.parametrize(
    "content", [b'"a":[' + b"0," * (MAX_PARTS + 1) + b"0]", b'"a":"' + rb"\n" * (MAX_PARTS + 1) + b'"']
)
def test_json_of_too_many_parts_is_refused_before_it_is_read(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(RefusedError, match=f"at most {MAX_PARTS} are allowed"):
        parse_object(b"{" + content + b"}")


def test_a_large_photograph_is_one_part() -> None:
    assert len(parse_object(b'{"photo":"' + b"A" * 30_000_000 + b'"}')["photo"]) == 30_000_000
