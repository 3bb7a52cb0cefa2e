"""The gateway before the real Triton: same images, nothing lost in between, and no work for callers that have gone."""

from __future__ import annotations

import base64
import http.client
import io
import json
import queue
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException
from waiting import wait_until

from id3pm.serving.service import Service
from id3pm_client import Client, DeadlineExceededError

pytestmark = pytest.mark.server
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def private(service: Service, wire_to: Callable[[Any], Any]) -> Iterator[Any]:
    """The bare Triton behind it."""
    connection = wire_to(service.server)
    yield connection
    connection.grpc.close()


def seed(number: int) -> np.ndarray:
    return np.array([[number]], dtype=np.int64)


def stream(wire: Any, model: str, body: Any) -> list[tuple[str, Any]]:
    status, content = wire.http(f"/v2/models/{model}/generate_stream", body)
    assert status == 200, content
    events = []
    for block in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def test_an_image_is_the_same_with_and_without_the_gateway(public: Any, private: Any, embedding: np.ndarray) -> None:
    asked: dict[str, Any] = {"embedding": embedding[None], "seed": seed(5)}
    direct = private.infer("id3pm", ["image", "image_64", "receipt"], **asked)
    through = public.infer("id3pm", ["image", "image_64", "receipt"], **asked)
    for name, tensor in direct.items():
        np.testing.assert_array_equal(through[name], tensor)
    client = tritonclient.http.InferenceServerClient(public.server.http_url)
    inputs = []
    for name, value, kind in (("embedding", embedding[None], "FP32"), ("seed", seed(5), "INT64")):
        inputs.append(tritonclient.http.InferInput(name, list(value.shape), kind).set_data_from_numpy(value))
    for compression in (None, "gzip"):
        result = client.infer("id3pm", inputs, request_compression_algorithm=compression)
        np.testing.assert_array_equal(result.as_numpy("image"), direct["image"])
    client.close()


def test_a_stream_ends_with_the_image_of_the_ensemble(public: Any, embedding: np.ndarray) -> None:
    body = {"embedding": embedding.tolist(), "seed": 6, "steps": 8, "guidance_scale": 1.7, "sr_steps": 3, "priority": 0}
    events = stream(public, "id3pm", body)
    names = [name for name, _ in events if name != "progress"]
    assert names == ["image_64", "image"]
    status, content = public.http("/v2/models/id3pm_png/generate", body)
    answer = json.loads(content)
    assert status == 200, answer
    image = events[-1][1]
    assert image["receipt"] == json.loads(answer["receipt"])
    assert image["png"] == answer["png"], "the same file"


def test_a_stream_takes_a_photograph(public: Any) -> None:
    file = io.BytesIO()
    Image.open(ROOT / "demo" / "people" / "03.png").convert("RGB").rotate(180).save(file, "PNG")
    body = {"photo": base64.b64encode(file.getvalue()).decode(), "face": "largest", "seed": 3}
    events = stream(public, "id3pm_photo", body)
    assert events[0] == ("face", {"faces": 1, "turned": 180})
    status, content = public.http("/v2/models/id3pm_photo_png/generate", body)
    assert status == 200 and events[-1][1]["png"] == json.loads(content)["png"]


def test_a_stream_shows_the_image_in_the_making(public: Any, embedding: np.ndarray) -> None:
    body = {"embedding": embedding.tolist(), "seed": 6, "steps": 900, "sr_steps": 30}
    events = stream(public, "id3pm", body)
    for stage, steps in (("denoiser_64", 900), ("super_resolution", 30)):
        told = [data for name, data in events if name == "progress" and data["stage"] == stage]
        seen = [data["step"] for data in told]
        assert seen == sorted(set(seen)) and len(seen) > 2, seen
        assert {data["steps"] for data in told} == {steps}
        assert base64.b64decode(told[-1]["preview_png"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"seed": -1}, "seed=-1: must be between 0 and"),
        ({"seed": 1, "stepz": 5}, "did you mean steps?"),
        ({"seed": 1, "sr_steps": 5000}, "sr_steps=5000"),
    ],
)
def test_a_stream_that_cannot_begin_is_an_error_with_the_rule(
    public: Any, embedding: np.ndarray, body: dict[str, Any], reason: str
) -> None:
    status, content = public.http("/v2/models/id3pm/generate_stream", {"embedding": embedding.tolist(), **body})
    assert status == 400 and reason in json.loads(content)["error"], content


def test_many_requests_on_one_grpc_stream_are_each_answered(public: Any, embedding: np.ndarray) -> None:
    alone = [public.infer("id3pm_png", ["png"], embedding=embedding[None], seed=seed(n))["png"] for n in range(4)]
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(public.server.grpc_url)
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    inputs = [public.tensor("embedding", embedding[None])]
    for number in range(4):
        client.async_stream_infer("id3pm_png", [*inputs, public.tensor("seed", seed(number))], request_id=f"s{number}")
    for _ in range(4):
        result, error = answers.get(timeout=30)
        assert error is None
        number = int(result.get_response().id[1:])
        np.testing.assert_array_equal(result.as_numpy("png"), alone[number])
    client.stop_stream()
    client.close()
    wait_until(lambda: "id3pm_gateway_in_flight" in public.metrics())
    assert public.metrics()["id3pm_gateway_in_flight"] == 0


def test_one_bad_request_on_a_stream_is_nobody_elses_trouble(public: Any, embedding: np.ndarray) -> None:
    alone = public.infer("id3pm_png", ["png"], embedding=embedding[None], seed=seed(1))["png"]
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(public.server.grpc_url)
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for model, number in (("id3pm_png", 1), ("id3pm_png", -1), ("other", 1), ("id3pm_png", 1)):
        inputs = [public.tensor("embedding", embedding[None]), public.tensor("seed", seed(number))]
        client.async_stream_infer(model, inputs, enable_empty_final_response=True)
    outcomes = [answers.get(timeout=30) for _ in range(4)]
    client.stop_stream()
    client.close()
    for result, error in (outcomes[0], outcomes[3]):
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("png"), alone)
    assert "seed=-1: must be between 0" in outcomes[1][1].message()
    assert "model 'other' is not served" in outcomes[2][1].message()


def refused(call: Callable[[], Any], code: str) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.status() == f"StatusCode.{code}", caught.value
    return str(caught.value.message())


def test_other_grpc_methods_are_closed(public: Any) -> None:
    client = public.grpc
    for call in (
        client.get_model_repository_index,
        lambda: client.load_model("id3pm"),
        lambda: client.unload_model("id3pm"),
        client.get_system_shared_memory_status,
        lambda: client.register_system_shared_memory("x", "/x", 8),
        client.get_trace_settings,
        client.get_log_settings,
    ):
        assert "closed" in refused(call, "PERMISSION_DENIED")


def test_questions_are_answered_over_grpc(public: Any) -> None:
    client = public.grpc
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("id3pm")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata().name == "triton"
    assert client.get_model_config("id3pm").config.platform == "ensemble"
    assert client.get_model_metadata("id3pm").platform == "ensemble"
    assert client.get_inference_statistics("id3pm").model_stats[0].name == "id3pm"


def test_a_large_grpc_message_is_refused_with_the_rule(service: Service, public: Any) -> None:
    photo = np.array([[bytes(service.settings.gateway.max_body)]], dtype=object)
    message = refused(lambda: public.infer("face_embedding", ["embedding"], photo=photo), "RESOURCE_EXHAUSTED")
    assert str(service.settings.gateway.max_body) in message


def test_draining_is_for_the_operator(public: Any, private: Any) -> None:
    assert "drain" in refused(lambda: public.control("denoiser_64", "drain"), "PERMISSION_DENIED")
    for model in ("face_embedding", "denoiser_64", "super_resolution"):
        for body in ({"control": ["drain", ""]}, {"parameters": {"control": ["drain", ""]}}):
            assert public.http(f"/v2/models/{model}/generate", body)[0] == 403
        assert not private.control(model, "ping")["draining"]


def running(wire: Any) -> int:
    return int(wire.control("denoiser_64", "ping")["active"])


def leave_http(wire: Any, path: str, body: dict[str, Any], private: Any) -> None:
    connection = http.client.HTTPConnection(wire.server.http_url, timeout=10)
    connection.request("POST", path, json.dumps(body))
    wait_until(lambda: running(private) == 1)
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def leave_grpc(wire: Any, model: str, embedding: np.ndarray, private: Any, *, streaming: bool) -> None:
    client = tritonclient.grpc.InferenceServerClient(wire.server.grpc_url)
    inputs = [wire.tensor("embedding", embedding[None]), wire.tensor("seed", seed(1))]
    inputs.append(wire.tensor("steps", np.array([[1000]], dtype=np.int32)))
    if streaming:
        client.start_stream(callback=lambda result, error: None)
        client.async_stream_infer(model, inputs, request_id="streamed")
    else:
        call = client.async_infer(model, inputs, callback=lambda result, error: None)
    wait_until(lambda: running(private) == 1)
    if streaming:
        client.stop_stream(cancel_requests=True)
    else:
        call.cancel()
    client.close()


def test_when_the_caller_goes_the_work_ends(public: Any, private: Any, embedding: np.ndarray) -> None:
    """Through ensembles, where Triton itself would go on: 1000 steps, of which most are never made."""
    body = {"embedding": embedding.tolist(), "seed": 1, "steps": 1000}
    before = public.metrics()
    ways: list[Callable[[], None]] = [
        lambda: leave_http(public, "/v2/models/id3pm_png/generate", body, private),
        lambda: leave_http(public, "/v2/models/id3pm/generate_stream", body, private),
        lambda: leave_grpc(public, "id3pm", embedding, private, streaming=False),
        lambda: leave_grpc(public, "id3pm", embedding, private, streaming=True),
    ]
    for way in ways:
        neighbour = public.start("id3pm_png", ["png"], embedding=embedding[None], seed=seed(2))
        neighbour()
        way()
        began = time.monotonic()
        wait_until(lambda: running(private) == 0)
        assert time.monotonic() - began < 1.0
    cancelled = 'id3pm_errors_total{code="CANCELLED",model="denoiser_64"}'
    wait_until(lambda: public.metrics().get(cancelled, 0) - before.get(cancelled, 0) == len(ways))  # up to 0.25 s old
    metrics = public.metrics()
    assert metrics["id3pm_gateway_disconnects_total"] - before["id3pm_gateway_disconnects_total"] == len(ways)
    steps = 'id3pm_steps_total{model="denoiser_64"}'
    assert metrics[steps] - before[steps] < 100, "of the neighbours alone"
    assert metrics["id3pm_gateway_in_flight"] == 0


def test_a_client_deadline_ends_the_work(public: Any, private: Any, embedding: np.ndarray) -> None:
    inputs = [public.tensor("embedding", embedding[None]), public.tensor("seed", seed(1))]
    inputs.append(public.tensor("steps", np.array([[1000]], dtype=np.int32)))
    refused(lambda: public.grpc.infer("id3pm", inputs, client_timeout=0.3), "DEADLINE_EXCEEDED")
    wait_until(lambda: running(private) == 0)


def test_an_error_of_a_stage_passes_unchanged(public: Any, private: Any, embedding: np.ndarray) -> None:
    asked: dict[str, Any] = {"embedding": embedding[None], "seed": seed(-1)}
    messages = [
        refused(lambda wire=wire: wire.infer("id3pm", ["image"], **asked), "INVALID_ARGUMENT")
        for wire in (public, private)
    ]
    assert "seed=-1: must be between 0" in messages[0]
    ours, theirs = (message.rpartition("] ")[2] for message in messages)
    assert ours == theirs.removeprefix("in ensemble 'id3pm', ")
    for path in ("/v2/models/id3pm/generate", "/v2/models/id3pm/infer"):
        status, content = public.http(path, b"{")
        assert status == 400 and "not JSON" in json.loads(content)["error"]


def test_a_deadline_that_cannot_be_met_has_its_own_status(public: Any, embedding: np.ndarray) -> None:
    body = {"embedding": embedding.tolist(), "seed": 1, "steps": 1000, "timeout": 200_000}
    for path in ("id3pm_png/generate", "denoiser_64/generate"):
        status, content = public.http(f"/v2/models/{path}", body)
        assert status == 504 and json.loads(content)["code"] == "deadline_exceeded", content
    hopeless = public.start(
        "id3pm",
        ["image"],
        timeout_us=200_000,
        embedding=embedding[None],
        seed=seed(1),
        steps=np.array([[1000]], dtype=np.int32),
    )
    assert "the deadline cannot be met" in refused(hopeless, "DEADLINE_EXCEEDED")
    with Client(public.server.grpc_url) as client, pytest.raises(DeadlineExceededError, match="cannot be met"):
        client.generate(embedding, 1, steps=1000, timeout_s=0.2)
