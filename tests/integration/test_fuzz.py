"""Whatever is sent to the public ports: an error with a reason and no path of the server, or an image; and a neighbour
whose image stays as it was."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from fuzzing import for_seconds, fuzz
from hypothesis import strategies as st
from PIL import Image
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from id3pm.serving.protocol.wire import OPTIONS
from id3pm.serving.service import Service

pytestmark = pytest.mark.server
DATATYPES = ["BOOL", "UINT8", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]
NAMES = [option.name for option in OPTIONS] + [
    "embedding",
    "photo",
    "face",
    "control",
    "id",
    "timeout",
    "step",
    "",
    "é",
]
CALLERS_MISTAKE = ("INVALID_ARGUMENT", "PERMISSION_DENIED", "NOT_FOUND")
PATHS = ["id3pm_png", "id3pm_photo_png"]
ROOT_PATH = re.compile(r"(^|[\s'\"=(])/(usr|tmp|home|root|opt|work|proc|dev|var|etc)/")
VALUE = re.compile(
    rf"\b({'|'.join(filter(None, NAMES))}|body|JSON|message|parameters?|data|inputs?|outputs?|classification|names?"
    r"|shape|model|header)\b"
)
RULE = re.compile(
    r"\b(must|expected|expects|at (most|least)|choose|send|give|needed|allowed|missing|unknown|mismatch|match(es)?"
    r"|is (not|no|damaged|truncated)|no (face|such)|damaged|does not|are not|unable to|should be|open here are|takes"
    r"|requires|out of bounds|invalid|between|unexpected|not served|unsupported|but got|unequal|no inference)\b",
    re.IGNORECASE,
)
# Few steps, or many by accident: most requests break a rule, and those that do not should be short.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers(-(2**80), 2**80)
    | st.floats(width=32)
    | st.text(max_size=20)
    | st.sampled_from(["ddim", "paper", "fast", "1", "nan", "only", "ping", "cancel", "../../etc/passwd", "\x00"])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))


@pytest.fixture(autouse=True)
def a_neighbour_does_not_notice(public: Any, neighbour: dict[str, np.ndarray], alone: np.ndarray) -> Iterator[None]:
    answer = public.start("id3pm", ["image"], **neighbour)
    yield
    np.testing.assert_array_equal(answer()["image"], alone)
    assert public.http("/v2/health/ready")[0] == 200
    assert public.metrics()["id3pm_gateway_restarts_total"] == 0, "a request brought the server down"


def check_words(message: str) -> None:
    """An error names what is wrong, and the rule that it breaks or what was expected instead."""
    assert len(message) < 2000
    assert "Traceback" not in message and "internal error" not in message, message
    assert not ROOT_PATH.search(message.replace("'../../etc/passwd'", "")), message
    assert VALUE.search(message), f"names no value: {message}"
    assert RULE.search(message), f"names no rule: {message}"


def test_words_without_value_or_rule_are_seen() -> None:
    check_words("steps=0: must be between 1 and 1000")
    for vague in (
        "something went wrong, please check your request",
        "steps are wrong",
        "it must be 5",
        "steps: see /tmp/x",
    ):
        with pytest.raises(AssertionError):
            check_words(vague)


def test_random_examples_end_by_the_clock() -> None:
    seen = []

    def example(number: int) -> None:
        seen.append(number)
        time.sleep(0.01)

    began = time.monotonic()
    for_seconds(example, lambda: 1.0, number=st.integers())()
    assert time.monotonic() - began < 20 and 1 <= len(seen) <= 101
    failing = for_seconds(lambda number: check_words("no"), lambda: 60.0, number=st.integers())
    with pytest.raises(AssertionError, match="names no value"):
        failing()


def check_error(status: int, content: bytes) -> None:
    document = json.loads(content)
    assert {"error", "code", "status"} <= set(document) <= {"error", "code", "status", "retry_after_s"}, document
    assert status in (400, 403, 404, 413), document  # one caller alone is never too much, and nothing here is a failure
    check_words(document["error"])


@fuzz(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_json_of_any_content(public: Any, embedding: np.ndarray, path: str, body: dict[str, Any]) -> None:
    body = {"embedding": embedding.tolist(), "seed": 1, **body, "steps": 1, "sr_steps": 1} if "seed" in body else body
    status, content = public.http(f"/v2/models/{path}/generate", json.dumps(body).encode())
    if status != 200:
        check_error(status, content)


@fuzz(data=st.binary(max_size=300), path=st.sampled_from(["infer", "generate", "generate_stream"]))
def test_bodies_of_any_bytes(public: Any, data: bytes, path: str) -> None:
    status, content = public.http(f"/v2/models/id3pm/{path}", data)
    assert status != 200
    check_error(status, content)


SIZES = st.sampled_from([0, 1, 2, 128, 2**25, 2**31, 2**55, 2**63 - 1, 2**63, -1, None, "1", 1.0])
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*NAMES, "control", 5]),
        "shape": st.lists(SIZES, max_size=4) | SIZES,
        "datatype": st.sampled_from([*DATATYPES, "NONSENSE", 5]),
        "data": JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region"]), JSON, max_size=2),
    },
)
OUTPUTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["image", "receipt", "png", "status", "x"])},
    optional={"parameters": st.dictionaries(st.sampled_from(["classification", "binary_data"]), SCALARS, max_size=2)},
)


@fuzz(
    model=st.sampled_from(["id3pm", "super_resolution", "face_embedding"]),
    inputs=st.lists(TENSORS, max_size=3),
    outputs=st.lists(OUTPUTS, max_size=2),
)
def test_json_tensors_of_any_kind(public: Any, model: str, inputs: list[Any], outputs: list[Any]) -> None:
    body = {"inputs": inputs, "outputs": outputs}
    status, content = public.http(f"/v2/models/{model}/infer", json.dumps(body).encode())
    if status != 200:
        check_error(status, content)


def test_what_made_triton_die(public: Any, embedding: np.ndarray) -> None:
    """A vector as long as its shape says, and a division by the size of a text."""
    seed = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [1]}
    for shape in ([2**63 - 1], [1, 2**55], [1, 2**25]):
        status, content = public.http("/v2/models/id3pm/infer", {"inputs": [{**seed, "shape": shape}]})
        assert status == 400 and "must be" in json.loads(content)["error"]
    outputs = [{"name": "receipt", "parameters": {"classification": 1}}]
    status, content = public.http("/v2/models/id3pm/infer", {"inputs": [seed], "outputs": outputs})
    assert status == 400 and "no output has classes" in json.loads(content)["error"]


@fuzz(
    name=st.sampled_from([name for name in NAMES if name]),
    datatype=st.sampled_from(["FP32", "INT32", "INT64", "BYTES", "BOOL", "FP16", "UINT8", "NONSENSE"]),
    shape=st.lists(st.integers(-2, 20), max_size=4),
    data=st.binary(max_size=200),
)
def test_tensors_of_any_kind(
    public: Any, embedding: np.ndarray, name: str, datatype: str, shape: list[int], data: bytes
) -> None:
    request = service_pb2.ModelInferRequest(model_name="id3pm")
    request.outputs.add(name="receipt")
    good = {"seed": ("INT64", [1, 1], np.array([1])), "embedding": ("FP32", [1, 128], embedding)}
    good |= {key: ("INT32", [1, 1], np.array([1], np.int32)) for key in ("steps", "sr_steps")}
    for key, (kind, size, value) in good.items():
        if key != name:
            request.inputs.add(name=key, datatype=kind, shape=size)
            request.raw_input_contents.append(value.tobytes())
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(data)
    stub = public.grpc._client_stub
    try:
        answer = stub.ModelInfer(request, timeout=30)
    except Exception as error:  # whatever class gRPC gives it
        code, message = error.code().name, error.details()  # type: ignore[attr-defined]
        assert code in CALLERS_MISTAKE, (code, message)
        check_words(message)
    else:
        assert answer.outputs


PARAMETERS = (
    st.builds(service_pb2.InferParameter, string_param=st.text(max_size=10) | st.sampled_from(["3_0", "3\0x", "fast"]))
    | st.builds(service_pb2.InferParameter, double_param=st.floats())
    | st.builds(service_pb2.InferParameter)
)
CONTENTS = st.none() | st.builds(
    service_pb2.InferTensorContents,
    fp32_contents=st.lists(st.floats(width=32), max_size=3),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
    bytes_contents=st.lists(st.binary(max_size=9), max_size=2),
)
MESSAGES = st.builds(
    service_pb2.ModelInferRequest,
    model_name=st.sampled_from(["id3pm", "id3pm_photo_png", "denoiser_64", "super_resolution", "face_embedding", "x"]),
    model_version=st.sampled_from(["", "1", "99", "\n"]),
    id=st.text(max_size=5),
    parameters=st.dictionaries(
        st.sampled_from([*NAMES, "x-a", "steps\0"]) | st.text(max_size=5), PARAMETERS, max_size=3
    ),
    inputs=st.lists(
        st.builds(
            service_pb2.ModelInferRequest.InferInputTensor,
            name=st.sampled_from(NAMES) | st.text(max_size=5),
            datatype=st.sampled_from(DATATYPES),
            shape=st.lists(st.sampled_from([0, 1, 2, 128, 2**31, 2**62, 2**63 - 1, -1]), max_size=4),
            contents=CONTENTS,
        ),
        max_size=4,
    ),
    outputs=st.lists(
        st.builds(
            service_pb2.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from(["image", "png", "receipt", "status", ""]),
        ),
        max_size=3,
    ),
    raw_input_contents=st.lists(st.binary(max_size=12), max_size=4),
)


@fuzz(
    message=MESSAGES, cut=st.integers(0, 40), flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)
)
def test_messages_of_any_kind(public: Any, message: Any, cut: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(message.SerializeToString())
    for place, value in flips:
        if data:
            data[place % len(data)] = value
    del data[len(data) - cut if cut < 20 else len(data) :]
    call = public.grpc._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    try:
        call(bytes(data), timeout=30)
    except grpc.RpcError as error:
        assert error.code().name in CALLERS_MISTAKE, error
        check_words(error.details())


@fuzz(seed=st.integers(0, 2**32), kind=st.sampled_from(["JPEG", "PNG", "WEBP"]), cut=st.booleans())
def test_photographs_with_damage(public: Any, seed: int, kind: str, cut: bool) -> None:
    chance = random.Random(seed)
    pixels = np.random.Generator(np.random.Philox(seed)).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    photo = bytearray(buffer.getvalue())
    for _ in range(chance.randint(1, 30)):
        photo[chance.randrange(len(photo))] = chance.randrange(256)
    if cut:
        del photo[chance.randrange(len(photo)) :]
    body = {"photo": base64.b64encode(bytes(photo)).decode(), "seed": 1}
    status, content = public.http("/v2/models/id3pm_photo_png/generate", body)
    assert status != 200  # noise is no face
    check_error(status, content)


@pytest.mark.parametrize("times", [1, 8])
def test_bodies_that_are_too_large(service: Service, public: Any, times: int) -> None:
    most = service.settings.gateway.max_body
    status, content = public.http("/v2/models/id3pm/infer", b"x" * (times * most + 1))
    assert status == 413 and f"at most {most}" in json.loads(content)["error"]
    with pytest.raises(InferenceServerException) as caught:
        public.infer("face_embedding", ["embedding"], photo=np.array([[b"x" * (times * most + 1)]], dtype=object))
    assert "RESOURCE_EXHAUSTED" in str(caught.value.status())
