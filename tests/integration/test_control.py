"""Ping, progress, cancel and deadlines on the running server."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.server
STAGES = ["denoiser_64", "super_resolution"]


def long_request(
    wire: Any, embedding: np.ndarray, id: str = "", model: str = "id3pm", steps: int = 1000, **more: Any
) -> Any:
    """Sends a request of some seconds; returns the function that waits for its answer."""
    inputs = {"embedding": embedding[None], "seed": np.array([[1]]), "steps": np.array([[steps]], dtype=np.int32)}
    return wire.start(model, ["image_64" if model == "denoiser_64" else "image"], id=id, **inputs, **more)


def wait_until(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", STAGES)
def test_ping_tells_how_the_scheduler_is(wire: Any, stage: str) -> None:
    status = wire.control(stage, "ping")
    assert (status["active"], status["waiting"], status["in_flight"], status["draining"]) == (0, 0, 0, False)
    assert 0 <= status["loop_age_ms"] < 3000


def test_progress_shows_steps_and_a_preview(wire: Any, embedding: np.ndarray) -> None:
    answer = long_request(wire, embedding, "watched", steps=400)

    def row() -> dict[str, Any]:
        return wire.control("denoiser_64", "progress", "watched").get("rows", [{}])[0]

    wait_until(lambda: row().get("step", 0) >= 2)
    seen = row()
    assert not seen["done"] and 2 <= seen["step"] < seen["steps"] == 400
    assert Image.open(io.BytesIO(base64.b64decode(seen["preview_png"]))).size == (64, 64)
    answer()
    assert wire.control("denoiser_64", "progress", "watched") == {"id": "watched", "found": False}


def test_cancel_stops_the_work_behind_an_ensemble(wire: Any, embedding: np.ndarray) -> None:
    answer = long_request(wire, embedding, "unwanted")
    wait_until(lambda: wire.control("denoiser_64", "cancel", "unwanted")["found"])
    with pytest.raises(InferenceServerException, match="cancelled"):
        answer()
    wait_until(lambda: wire.control("denoiser_64", "ping")["active"] == 0, timeout_s=2.0)
    assert wire.control("denoiser_64", "cancel", "unwanted") == {"id": "unwanted", "found": False}


def test_cancel_leaves_the_neighbours_alone(wire: Any, embedding: np.ndarray) -> None:
    alone = long_request(wire, embedding, "alone", steps=60)()
    neighbour = long_request(wire, embedding, "neighbour", steps=60)
    doomed = [long_request(wire, -embedding, f"doomed-{index}") for index in range(3)]
    for index, answer in enumerate(doomed):
        wait_until(lambda id=f"doomed-{index}": wire.control("denoiser_64", "cancel", id)["found"])
        with pytest.raises(InferenceServerException, match="cancelled"):
            answer()
    assert np.array_equal(neighbour()["image"], alone["image"])


def test_work_stops_when_the_caller_of_a_stage_gives_up(wire: Any, embedding: np.ndarray) -> None:
    """Triton tells direct models of a cancelled gRPC call; through ensembles it does not (hence control cancel)."""
    tensors = [wire.tensor("embedding", embedding[None]), wire.tensor("seed", np.array([[1]]))]
    tensors.append(wire.tensor("steps", np.array([[1000]], dtype=np.int32)))
    call = wire.grpc.async_infer("denoiser_64", tensors, callback=lambda result, error: None, client_timeout=60)
    wait_until(lambda: wire.control("denoiser_64", "ping")["active"] == 1)
    call.cancel()
    wait_until(lambda: wire.control("denoiser_64", "ping")["active"] == 0, timeout_s=2.0)


@pytest.mark.parametrize("model", ["denoiser_64", "id3pm"])
def test_a_deadline_ends_the_work(wire: Any, embedding: np.ndarray, model: str) -> None:
    with pytest.raises(InferenceServerException, match="the deadline passed at step") as caught:
        long_request(wire, embedding, model=model, timeout_us=200_000)()
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert wire.control("denoiser_64", "ping")["active"] == 0


def test_http_generate_takes_a_deadline_too(wire: Any, embedding: np.ndarray) -> None:
    inputs = {"embedding": embedding.tolist(), "seed": 1, "steps": 1000, "timeout": 200_000}
    status, body = wire.http("/v2/models/id3pm_png/generate", inputs)
    assert status == 400  # Triton's generate endpoint knows one status for all errors of a model
    assert b"the deadline passed at step" in body
