"""What the gateway reads of a request before Triton does: the same as Triton will, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.auth import ANYBODY, MODELS, Access
from id3pm.serving.gateway.request import MAX_PARTS, Asked, parse_object, read_json, read_message
from id3pm.serving.protocol.status import RefusedError


def element(text: str) -> bytes:
    return len(text).to_bytes(4, "little") + text.encode()


def refused(code: str, body: bytes, length: str | None = None, *, generate: bool = False) -> str:
    with pytest.raises(RefusedError) as caught:
        read_json("denoiser_64", body, length, generate=generate)[0].check(ANYBODY)
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize("body", [b'{"seed": 1}', b' \n{"seed":1, "id": ""}', b"{}"])
@pytest.mark.parametrize("generate", [True, False])
def test_a_request_without_id_gets_one(body: bytes, generate: bool) -> None:
    asked, sent, length = read_json("id3pm", body, None, generate=generate)
    first = json.loads(sent, object_pairs_hook=lambda pairs: pairs)
    assert first[0] == ("id", asked.id) and len(asked.id) == 32, "Triton takes the first of two"
    assert [pair for pair in first[1:] if pair[0] != "id"] == ([("seed", 1)] if b"seed" in body else [])
    assert length is None


def test_an_id_stays_and_so_does_the_body() -> None:
    body = b'{"id": "mine", "eta": 1e400}'
    assert read_json("id3pm", body, None, generate=True) == (Asked("id3pm", "mine"), body, None)


def test_binary_tensors_stay_behind_the_json_that_grew() -> None:
    head = json.dumps(
        {"inputs": [{"name": "seed", "shape": [1, 1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}]}
    ).encode()
    asked, body, length = read_json("id3pm", head + b"\x01" * 8, str(len(head)), generate=False)
    assert length is not None
    assert json.loads(body[:length])["id"] == asked.id
    assert body[length:] == b"\x01" * 8


def test_a_message_without_id_gets_one_and_keeps_the_rest() -> None:
    message = service_pb2.ModelInferRequest(model_name="id3pm", model_version="1")
    message.inputs.add(name="seed", datatype="INT64", shape=[1, 1])
    message.raw_input_contents.append(bytes(8))
    asked, data = read_message(message.SerializeToString())
    parsed = service_pb2.ModelInferRequest.FromString(data)
    assert asked == Asked("id3pm", parsed.id) and len(parsed.id) == 32
    parsed.id = ""
    assert parsed == message


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
        (b"{}", "9", "Inference-Header-Content-Length='9': must be 1 .. 2"),
        (b"{}", "-1", "must be 1 .. 2"),
        (b"{}", "x", "must be 1 .. 2"),
        (b"{}", "9" * 5000, "must be 1 .. 2"),
    ],
)
def test_what_is_no_request_is_refused_with_the_rule(body: bytes, length: str | None, reason: str) -> None:
    assert reason in refused("INVALID_ARGUMENT", body, length)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"no inference\.ModelInferRequest"):
        read_message(b"\xff\xff\xff")


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
    asked, sent, _ = read_json("denoiser_64", body, length, generate=False)
    asked.check(ANYBODY)
    assert asked.control == op and sent == body


@pytest.mark.parametrize("op", ["drain", "", "DRAIN", "dr\u0000ain"])
def test_draining_is_not_for_callers_whatever_the_form(op: str) -> None:
    for binary in (False, True):
        refused("PERMISSION_DENIED", *control(op, "", binary=binary))
    refused("PERMISSION_DENIED", json.dumps({"control": [op, ""]}).encode(), generate=True)
    refused("PERMISSION_DENIED", json.dumps({"control": op}).encode(), generate=True)
    refused("PERMISSION_DENIED", json.dumps({"parameters": {"control": [op, ""]}}).encode(), generate=True)
    for raw in (True, False):
        message = service_pb2.ModelInferRequest(model_name="denoiser_64")
        tensor = message.inputs.add(name="control", datatype="BYTES", shape=[1, 2])
        if raw:
            message.raw_input_contents.append(element(op) + element(""))
        else:
            tensor.contents.bytes_contents.extend([op.encode(), b""])
        with pytest.raises(RefusedError, match="open here are ping"):
            read_message(message.SerializeToString())[0].check(ANYBODY)


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"denoiser_64", "super_resolution"}))
def test_where_nothing_reads_control_it_opens_nothing(model: str) -> None:
    kinds = {"vector": "photo", "photo": "vector"}
    other = Access(accept=(kinds[MODELS[model] or ""],)).caller(None)
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="control", datatype="BYTES", shape=[1, 2])
    message.raw_input_contents.append(element("ping") + element(""))
    requests = [
        read_json(model, b'{"control": "ping", "photo": "x"}', None, generate=True)[0],
        *(read_json(model, *control("ping", "", binary=binary), generate=False)[0] for binary in (False, True)),
        read_message(message.SerializeToString())[0],
    ]
    for asked in requests:
        if model != "face_embedding":  # which has such an input, for the supervisor
            assert asked.control is None and len(asked.id) == 32, "it is work"
        with pytest.raises(RefusedError, match="callers of this service may not send") as caught:
            asked.check(other)
        assert caught.value.code == "PERMISSION_DENIED"


@pytest.mark.parametrize("op", ["ping", "drain"])
def test_the_face_stage_takes_control_from_nobody(op: str) -> None:
    """Its `drain` would end all work with photographs, for everybody."""
    message = service_pb2.ModelInferRequest(model_name="face_embedding")
    message.inputs.add(name="control", datatype="BYTES", shape=[1, 2])
    message.raw_input_contents.append(element(op) + element(""))
    requests = [
        read_json("face_embedding", json.dumps({"control": [op, ""], "photo": "x"}).encode(), None, generate=True)[0],
        *(read_json("face_embedding", *control(op, "", binary=binary), generate=False)[0] for binary in (False, True)),
        read_message(message.SerializeToString())[0],
    ]
    for asked in requests:
        with pytest.raises(RefusedError, match="face_embedding takes none here") as caught:
            asked.check(ANYBODY)
        assert caught.value.code == "PERMISSION_DENIED"


@pytest.mark.parametrize("name", ["control\0", "control\0x", "seed\0"])
def test_a_name_that_triton_would_read_otherwise_is_refused(name: str) -> None:
    """Triton reads names to their first NUL: behind it, `drain` would pass as something else."""
    assert "a NUL" in refused("INVALID_ARGUMENT", json.dumps({name: "drain"}).encode(), generate=True)
    for binary in (False, True):
        assert "a NUL" in refused("INVALID_ARGUMENT", *control("drain", "", binary=binary, name=name))
    message = service_pb2.ModelInferRequest(model_name="denoiser_64")
    message.inputs.add(name=name, datatype="BYTES", shape=[1, 2])
    with pytest.raises(RefusedError, match="a NUL"):
        read_message(message.SerializeToString())


def test_a_second_control_input_cannot_hide_behind_the_first() -> None:
    tensor = {"name": "control", "shape": [1, 2], "datatype": "BYTES"}
    body = json.dumps({"inputs": [{**tensor, "data": [op, ""]} for op in ("ping", "drain")]}).encode()
    assert "sent twice" in refused("INVALID_ARGUMENT", body)
    body = json.dumps({"control": ["ping", ""], "parameters": {"control": ["drain", ""]}}).encode()
    assert "sent twice" in refused("INVALID_ARGUMENT", body, generate=True)


def test_an_unknown_model_is_named_with_those_that_are_served() -> None:
    with pytest.raises(RefusedError, match=r"model 'x' is not served; there are id3pm, .*super_resolution"):
        Asked("x", "1").check(ANYBODY)


@pytest.mark.parametrize(
    "content", [b'"a":[' + b"0," * (MAX_PARTS + 1) + b"0]", b'"a":"' + rb"\n" * (MAX_PARTS + 1) + b'"']
)
def test_json_of_too_many_parts_is_refused_before_it_is_read(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(RefusedError, match=f"at most {MAX_PARTS} are allowed"):
        parse_object(b"{" + content + b"}")


def test_a_large_photograph_is_one_part() -> None:
    assert len(parse_object(b'{"photo":"' + b"A" * 30_000_000 + b'"}')["photo"]) == 30_000_000
