"""Checks of tensor descriptions, because Triton trusts them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.auth import ANYONE
from id3pm.serving.gateway.request import read_json, read_message
from id3pm.serving.protocol.status import RefusedError

SEED = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [1]}


def refused(document: dict[str, Any], *, generate: bool = False, binary: bytes = b"") -> str:
    head = json.dumps(document).encode()
    with pytest.raises(RefusedError) as caught:
        read_json("id3pm", "", head + binary, len(head), generate=generate).check(ANYONE)
    assert caught.value.code == "invalid_argument"
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [9223372036854775807]}, ["'seed'", "9223372036854775807", "must be [images, 1]"]),
        ({"shape": [1, 2**55]}, [str(2**55), "must be [images, 1]"]),
        ({"shape": [2**40, 2**40]}, ["of 1 to 16 images"]),
        ({"shape": [17, 1]}, ["of 1 to 16 images"]),
        ({"shape": [0, 1]}, ["of 1 to 16 images"]),
        ({"shape": [1, -1]}, ["shape=[1, -1]", "list of at most 8 sizes"]),
        ({"shape": [1.0]}, ["shape=[1.0]"]),
        ({"shape": [True]}, ["shape=[true]"]),
        ({"shape": "1"}, ["shape='1'"]),
        ({"shape": [1] * 9}, ["at most 8"]),
        ({"shape": None}, ["shape=null"]),
        ({"datatype": "INT65"}, ["datatype='INT65'", "must be INT64"]),
        ({"datatype": "FP32", "data": [1]}, ["datatype='FP32'", "must be INT64"]),
        ({"datatype": ["INT64"]}, ["datatype=['INT64']"]),
        ({"data": ["1"]}, ["'1'", "a whole number"]),
        ({"data": [1.5]}, ["1.5", "a whole number"]),
        ({"data": [True]}, ["true", "a whole number"]),
        ({"data": [None]}, ["null", "a whole number"]),
        ({"data": [2**63]}, [str(2**63), "a whole number (INT64)"]),
        ({"name": "eta", "datatype": "FP32", "data": ["1"]}, ["'1'", "must be a number"]),
        ({"name": "preset", "datatype": "BYTES", "data": [1]}, ["must be text"]),
        ({"data": [[1], [2]]}, ["2 elements", "must be 1"]),
        ({"data": {"a": 1}}, ["{'a': 1}", "a whole number"]),
        ({"name": "sed"}, ["input 'sed' is unknown: did you mean seed?"]),
        ({"name": "x" * 10**6}, ["is unknown"]),
        ({"name": "\n" * 8000}, ["'\\n\\n", "is unknown"]),
        ({"name": 5}, ["the name of an input is 5: must be text"]),
        ({"more": 5}, ["key of an input 'more' is unknown"]),
        ({"parameters": {"shared_memory_region": "x"}}, ["input parameter 'shared_memory_region' is unknown"]),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused_by_name(change: dict[str, Any], words: list[str]) -> None:
    message = refused({"inputs": [{**SEED, **change}]})
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("datatype", "size", "words"),
    [
        ("INT64", 7, "7 bytes were sent: must be 8"),
        ("BYTES", 3, "3 bytes were sent, of 0 strings and part of a length"),
        ("BYTES", 8, "8 bytes were sent, of more than 1 strings"),
        ("INT64", True, "binary_data_size=true"),
        ("INT64", 2**62, "must be a number of bytes, at most 8 are left"),
    ],
)
def test_so_are_binary_ones(datatype: str, size: Any, words: str) -> None:
    name = {"INT64": "seed", "BYTES": "preset"}[datatype]
    tensor = {"name": name, "shape": [1, 1], "datatype": datatype, "parameters": {"binary_data_size": size}}
    assert words in refused({"inputs": [tensor]}, binary=bytes(size if size in (3, 7) else 8))


def test_bytes_behind_the_json_belong_to_a_tensor() -> None:
    assert "8 bytes lie behind the JSON: must be 0" in refused({"inputs": [SEED]}, binary=bytes(8))
    assert "generate takes no binary tensors" in refused({"seed": 1}, binary=bytes(8), generate=True)


def test_a_tensor_has_one_content() -> None:
    nothing = {"name": "eta", "shape": [1, 1], "datatype": "FP32"}
    assert "neither of data and binary_data_size" in refused({"inputs": [nothing]})
    both = {**SEED, "parameters": {"binary_data_size": 2**58}}
    assert "both of data and binary_data_size" in refused({"inputs": [both]})


@pytest.mark.parametrize("depth", [1, 900])
def test_values_are_checked_in_time_and_at_any_depth(depth: int) -> None:
    """A body below 1 MiB is read in the event loop: no other caller is served meanwhile."""
    flat = ",".join(["1"] * 500_000)
    for data, words in ((flat, None), (flat + ',"x"', "'x' among its data"), (flat + ",1", "500001 elements")):
        nested = "[" * depth + data + "]" * depth
        tensor = '{"name":"embedding","shape":[1,500000],"datatype":"FP32","data":' + nested + "}"
        body = f'{{"id":"x","inputs":[{tensor}]}}'.encode()
        began = time.process_time()
        if words is None:
            read_json("id3pm", "", body, len(body), generate=False).check(ANYONE)
        else:
            with pytest.raises(RefusedError, match=words):
                read_json("id3pm", "", body, len(body), generate=False)
        assert time.process_time() - began < 1.0


def test_messages_show_the_beginning_of_what_is_large_or_deep() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    for document in ({"id": deep}, {"parameters": deep}, {"preset": deep}, {"embedding": ["x"] * 100_000}):
        assert len(refused(document, generate=True)) < 300


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"steps": "8"}, "steps='8': must be a whole number (INT32)"),
        ({"steps": 8.5}, "steps=8.5"),
        ({"seed": True}, "seed=true: must be a whole number"),
        ({"parameters": {"seed": "1"}}, "seed='1'"),
        ({"embedding": "1"}, "embedding='1': must be numbers"),
        ({"embedding": [1, "x"]}, "embedding=[1, 'x']: must be numbers"),
        ({"embedding": [1, None]}, "embedding=[1, null]: must be numbers"),
        ({"embedding": [[1, 2], [3]]}, "lists within it must have one length"),
        ({"embedding": [1, [2]]}, "lists within it must have one length"),
        ({"preset": 5}, "preset=5: must be text"),
        ({"preset": "\ud800"}, "preset='\\ud800': must be Unicode"),
        ({"attributes": {"yaw": -20}}, "attributes={'yaw': -20}: must be numbers; attribute_values takes them by name"),
        ({"parameters": 5}, "parameters=5: must be an object"),
        ({"": {}}, "parameter ''={}: must be a number, text or a list"),
        ({"seed": 1, "parameters": {"seed": 1}}, "seed is sent twice"),
        ({"seed": 1, "steps\0": 5}, "the name 'steps\\x00': must be printable"),
        ({"seed": 1, "x-a": "3\0x"}, "parameter 'x-a'='3\\x00x': must not have a NUL"),
        ({"seed": 1, "x-a": 1e400}, "parameter 'x-a'=inf: must be a finite number"),
        ({"seed": 1, "num_inference_steps": 5}, "'num_inference_steps' is unknown: did you mean steps? valid are seed"),
        ({"seed": 1, "guidance": 5}, "did you mean guidance_scale?"),
        ({"seed": 1, "vector": [5]}, "did you mean embedding?"),
        ({"seed": 1, "timeout": "soon"}, "timeout='soon': expected a whole number of microseconds"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(document: dict[str, Any], words: str) -> None:
    assert words in refused(document, generate=True)


@pytest.mark.parametrize("tensor", [SEED, {**SEED, "data": [[1]]}])
def test_what_is_as_it_says_passes(tensor: dict[str, Any]) -> None:
    body = json.dumps({"id": "x", "inputs": [tensor]}).encode()
    read_json("id3pm", "", body, len(body), generate=False).check(ANYONE)


def test_outputs_by_classes_are_refused_over_both_protocols() -> None:
    outputs = [{"name": "receipt", "parameters": {"classification": 1}}]
    assert "classification=1" in refused({"inputs": [SEED], "outputs": outputs})
    assert "outputs: must be a list" in refused({"outputs": {}})
    message = seed()
    message.outputs.add(name="receipt").parameters["classification"].int64_param = 1
    assert "classification=1: must be left out" in message_refused(message)


def seed(shape: tuple[int, ...] = (1, 1), raw: bytes | None = bytes(8)) -> Any:
    message = service_pb2.ModelInferRequest(model_name="id3pm")
    message.inputs.add(name="seed", datatype="INT64", shape=shape)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def message_refused(message: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        read_message(message.SerializeToString()).check(ANYONE)
    assert caught.value.code == "invalid_argument"
    return str(caught.value)


def vector(*shape: int, name: str = "embedding") -> Any:
    message = service_pb2.ModelInferRequest(model_name="id3pm_png")
    message.inputs.add(name=name, datatype="FP32", shape=shape)
    message.raw_input_contents.append(b"")
    return message


@pytest.mark.parametrize("name", ["embedding", "attributes"])
@pytest.mark.parametrize("size", [2**62, 2**62 + 128, 2**63 - 1, 128, -1])
def test_a_message_whose_bytes_are_fewer_than_its_shape_says_is_refused(name: str, size: int) -> None:
    """2^62 elements of four bytes are none in 64 bits: this killed Triton."""
    assert name in message_refused(vector(1, size, name=name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.inputs.add(name="seed", datatype="INT64", shape=[1, 1]), "the input seed is sent twice"),
        (lambda m: m.inputs.add(name="eta", datatype="FP32", shape=[1, 1]), "1 raw contents were sent for 2 inputs"),
        (lambda m: m.raw_input_contents.append(b""), "2 raw contents were sent for 1 inputs"),
        (lambda m: m.inputs[0].contents.int64_contents.append(1), "has contents and raw contents"),
        (lambda m: m.inputs[0].parameters["shared_memory_region"].MergeFrom(text("x")), "has parameters"),
        (lambda m: m.parameters["x-" + "y" * 64].MergeFrom(text("x")), "at most 64 printable characters"),
        (lambda m: m.parameters["x-\n"].MergeFrom(text("x")), "at most 64 printable characters"),
        (lambda m: m.parameters["x-y"].MergeFrom(text("3\0x")), "must not have a NUL"),
        (lambda m: m.parameters["x-y"].MergeFrom(text("x" * 300_000)), "at most 262144"),
        (lambda m: m.parameters["x-y"].SetInParent(), "has no value"),
        (lambda m: m.parameters["stepz"].MergeFrom(text("3")), "did you mean steps?"),
        (lambda m: m.parameters["priority"].MergeFrom(text("3")), "send it as an input"),
        (lambda m: m.parameters["timeout"].MergeFrom(text("3")), "timeout='3': expected a whole number"),
        (lambda m: m.outputs.add(name="imag"), "output 'imag' is unknown: did you mean image?"),
        (lambda m: [m.outputs.add(name="image") for _ in "ab"], "the output image is sent twice"),
        (lambda m: m.inputs[0].ClearField("shape"), "must be [images, 1]"),
        (lambda m: m.ClearField("inputs"), "there are no inputs: send embedding"),
    ],
)
def test_what_a_message_says_of_itself_is_checked(change: Any, words: str) -> None:
    message = seed()
    change(message)
    assert words in message_refused(message)


def text(value: str) -> Any:
    return service_pb2.InferParameter(string_param=value)


def test_typed_contents_are_checked_as_raw_ones_are() -> None:
    message = seed(raw=None)
    assert "has 0 elements: must be 1" in message_refused(message)
    message.inputs[0].contents.int64_contents.append(1)
    read_message(message.SerializeToString()).check(ANYONE)
    message.inputs[0].contents.fp32_contents.append(1)
    assert "has fp32_contents: INT64 must be in int64_contents" in message_refused(message)


def test_inputs_of_one_request_are_of_as_many_images() -> None:
    message = seed((2, 1), bytes(16))
    message.inputs.add(name="eta", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(bytes(4))
    assert "of 1 and 2 images (seed [2, 1], eta [1, 1])" in message_refused(message)


def test_a_version_that_is_not_served_is_refused() -> None:
    message = seed()
    message.model_version = "99"
    with pytest.raises(RefusedError, match="model id3pm has no version '99': send 1") as caught:
        read_message(message.SerializeToString()).check(ANYONE)
    assert caught.value.code == "not_found"
