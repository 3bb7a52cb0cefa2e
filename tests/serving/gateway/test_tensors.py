"""What a request says of its tensors must be so: Triton itself believes it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.request import read_json, read_message
from id3pm.serving.protocol.status import RefusedError

SEED = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [1]}


def refused(document: dict[str, Any], *, generate: bool = False, binary: bytes = b"") -> str:
    head = json.dumps(document).encode()
    with pytest.raises(RefusedError) as caught:
        read_json("id3pm", head + binary, str(len(head)) if binary else None, generate=generate)
    assert caught.value.code == "INVALID_ARGUMENT"
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [9223372036854775807]}, ["'seed'", "1 elements", "9223372036854775807"]),
        ({"shape": [1, 2**55]}, ["1 elements", str(2**55)]),
        ({"shape": [2**40, 2**40]}, ["1 elements"]),
        ({"shape": [1, -1]}, ["shape=[1, -1]", "list of at most 8 sizes"]),
        ({"shape": [1.0]}, ["shape=[1.0]"]),
        ({"shape": [True]}, ["shape=[True]"]),
        ({"shape": "1"}, ["shape='1'"]),
        ({"shape": [1] * 9}, ["at most 8"]),
        ({"shape": None}, ["shape=None"]),
        ({"datatype": "INT65"}, ["datatype='INT65'", "must be one of BOOL"]),
        ({"datatype": ["INT64"]}, ["datatype=['INT64']"]),
        ({"data": ["1"]}, ["'1'", "whole numbers"]),
        ({"data": [1.5]}, ["1.5", "whole numbers"]),
        ({"data": [True]}, ["True", "whole numbers"]),
        ({"data": [2**63]}, [str(2**63), str(2**63 - 1)]),
        ({"datatype": "FP32", "data": ["1"]}, ["'1'", "must be numbers"]),
        ({"datatype": "BYTES", "data": [1]}, ["must be text"]),
        ({"datatype": "BOOL", "data": [1]}, ["true or false"]),
        ({"data": [[1], [2]]}, ["2 elements", "must be 1"]),
        ({"data": {"a": 1}}, ["{'a': 1}", "whole numbers"]),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused_by_name(change: dict[str, Any], words: list[str]) -> None:
    message = refused({"inputs": [{**SEED, **change}]})
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("datatype", "size", "words"),
    [("INT64", 7, "7 bytes were sent: must be 8"), ("BYTES", 3, "3 bytes"), ("FP32", True, "binary_data_size=True")],
)
def test_so_are_binary_ones(datatype: str, size: Any, words: str) -> None:
    tensor = {"name": "seed", "shape": [1, 1], "datatype": datatype, "parameters": {"binary_data_size": size}}
    assert words in refused({"inputs": [tensor]}, binary=bytes(8))


def test_a_tensor_has_one_content() -> None:
    nothing = {"name": "x", "shape": [1], "datatype": "FP32"}
    assert "neither of data and binary_data_size" in refused({"inputs": [nothing]})
    both = {**SEED, "shape": [1, 2**55], "parameters": {"binary_data_size": 2**58}}
    assert "both of data and binary_data_size" in refused({"inputs": [both]})


@pytest.mark.parametrize("depth", [1, 500, 900])
def test_values_are_checked_in_time_and_at_any_depth(depth: int) -> None:
    """A body below 1 MiB is read in the event loop: nobody else is served meanwhile."""
    flat = ",".join(["1"] * 500_000)
    for data, words in ((flat, None), (flat + ',"x"', "'x' among its data"), (flat + ",1", "500001 elements")):
        nested = "[" * depth + data + "]" * depth
        tensor = '{"name":"seed","shape":[500000],"datatype":"INT64","data":' + nested + "}"
        body = f'{{"id":"x","inputs":[{tensor}]}}'.encode()
        began = time.process_time()
        if words is None:
            read_json("id3pm", body, None, generate=False)
        else:
            with pytest.raises(RefusedError, match=words):
                read_json("id3pm", body, None, generate=False)
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
        ({"steps": "8"}, "steps='8': must be whole numbers between"),
        ({"steps": 8.5}, "steps=8.5"),
        ({"seed": True}, "seed=True"),
        ({"parameters": {"seed": "1"}}, "seed='1'"),
        ({"embedding": "1"}, "embedding='1': must be numbers"),
        ({"embedding": [1, "x"]}, "embedding=[1, 'x']: must be numbers"),
        ({"preset": 5}, "preset=5: must be text"),
        ({"attributes": {"yaw": -20}}, "attributes={'yaw': -20}: must be numbers"),
        ({"parameters": 5}, "parameters=5: must be an object"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(document: dict[str, Any], words: str) -> None:
    assert words in refused(document, generate=True)


@pytest.mark.parametrize("tensor", [SEED, {**SEED, "data": [[1]]}, {**SEED, "shape": [0], "data": []}])
def test_what_is_as_it_says_passes(tensor: dict[str, Any]) -> None:
    assert read_json("id3pm", json.dumps({"id": "x", "inputs": [tensor]}).encode(), None, generate=False)


def test_outputs_by_classes_are_refused_over_both_protocols() -> None:
    outputs = [{"name": "receipt", "parameters": {"classification": 1}}]
    assert "classification=1" in refused({"inputs": [SEED], "outputs": outputs})
    assert "outputs: must be a list" in refused({"outputs": {}})
    message = service_pb2.ModelInferRequest(model_name="id3pm")
    message.outputs.add(name="receipt").parameters["classification"].int64_param = 1
    with pytest.raises(RefusedError, match="classification=1: must be left out"):
        read_message(message.SerializeToString())
