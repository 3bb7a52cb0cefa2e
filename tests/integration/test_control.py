"""Ping, progress, watch, cancel and deadlines on the running server."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException
from waiting import wait_until

pytestmark = pytest.mark.server
STAGES = ["denoiser_64", "super_resolution"]


def long_request(
    wire: Any, embedding: np.ndarray, id: str = "", model: str = "id3pm", steps: int = 1000, **more: Any
) -> Any:
    """Sends a request of some seconds; returns the function that waits for its answer."""
    inputs = {"embedding": embedding[None], "seed": np.array([[1]]), "steps": np.array([[steps]], dtype=np.int32)}
    return wire.start(model, ["image_64" if model == "denoiser_64" else "image"], id=id, **{**inputs, **more})


@pytest.mark.parametrize("stage", STAGES)
def test_ping_tells_how_the_scheduler_is(wire: Any, stage: str) -> None:
    status = wire.control(stage, "ping")
    assert (status["active"], status["waiting"], status["in_flight"], status["draining"]) == (0, 0, 0, False)
    assert 0 <= status["loop_age_ms"] < 3000
    assert status["step_ms"] > 0 and status["backlog_s"] == 0


def test_ping_tells_how_much_work_is_in_flight(wire: Any, embedding: np.ndarray) -> None:
    answer = long_request(wire, embedding, "work", model="denoiser_64")
    wait_until(lambda: wire.control("denoiser_64", "progress", "work")["found"])
    assert wire.control("denoiser_64", "ping")["backlog_s"] > 0
    wire.control("denoiser_64", "cancel", "work")
    with pytest.raises(InferenceServerException, match="cancelled"):
        answer()


def follow(wire: Any, model: str, id: str) -> list[dict[str, Any]]:
    """All that a follower of a request of one row is told of one stage, from its first step on."""
    wait_until(lambda: wire.control(model, "watch", id, "-1", "0")["found"])
    seen: list[dict[str, Any]] = []
    while True:
        state = wire.control(model, "watch", id, str(seen[-1]["step"]) if seen else "-1")
        if not state["found"]:
            return seen
        seen += [row for row in state["rows"] if not row["done"]]


def test_a_follower_of_an_ensemble_sees_both_stages_step_by_step(wire: Any, embedding: np.ndarray) -> None:
    answer = long_request(wire, embedding, "followed", steps=300, sr_steps=np.array([[80]], dtype=np.int32))
    base = follow(wire, "denoiser_64", "followed")
    sr = follow(wire, "super_resolution", "followed")
    answer()
    for rows, steps in ((base, 300), (sr, 80)):
        made = [row["step"] for row in rows]
        assert made == sorted(set(made)) and len(made) >= 3 and {row["steps"] for row in rows} == {steps}
    assert Image.open(io.BytesIO(base64.b64decode(base[-1]["preview_png"]))).size == (64, 64)
    assert Image.open(io.BytesIO(base64.b64decode(sr[-1]["preview_png"]))).size == (256, 256)


def test_before_its_first_step_super_resolution_shows_its_input(wire: Any) -> None:
    small = np.random.Generator(np.random.Philox(8)).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    inputs = {"image_64": np.repeat(small, 8, axis=0), "seed": np.zeros((8, 1), np.int64)}
    many = np.full((8, 1), 200, np.int32)
    busy = wire.start(
        "super_resolution", ["image"], id="busy", sr_steps=many, priority=np.zeros((8, 1), np.int32), **inputs
    )
    wait_until(lambda: wire.control("super_resolution", "ping")["in_flight"] == 1)
    waits = wire.start(
        "super_resolution", ["image"], id="waits", image_64=small, seed=np.array([[1]]), sr_steps=many[:1]
    )
    wait_until(lambda: wire.control("super_resolution", "progress", "waits")["found"])
    (row,) = wire.control("super_resolution", "watch", "waits", "-1")["rows"]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["preview_png"]))))
    assert row["step"] == 0 and np.abs(shown.astype(int) - small[0]).max() <= 1  # rounding
    for id, answer in (("busy", busy), ("waits", waits)):
        wire.control("super_resolution", "cancel", id)
        with pytest.raises(InferenceServerException, match="cancelled"):
            answer()


def test_a_watch_holds_nobody_up(wire: Any, embedding: np.ndarray) -> None:
    answer = long_request(wire, embedding, "slow", model="denoiser_64")
    wait_until(lambda: wire.control("denoiser_64", "progress", "slow")["found"])
    words = np.array([["watch", "slow", "999"]], dtype=object)
    polls = [wire.start("denoiser_64", ["status"], control=words) for _ in range(20)]
    start = time.monotonic()
    long_request(wire, embedding, "quick", model="denoiser_64", steps=3)()
    assert time.monotonic() - start < 2.0
    wire.control("denoiser_64", "cancel", "slow")
    for poll in polls:
        assert json.loads(poll()["status"][0, 0]) == {"id": "slow", "found": False}
    with pytest.raises(InferenceServerException, match="cancelled"):
        answer()


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
    late: InferenceServerException | None = None
    for _ in range(5):  # where another job slows the first of the two down, the second is in time
        start = time.monotonic()
        long_request(wire, embedding, model="denoiser_64", steps=400)()
        too_little = int(0.6 * (time.monotonic() - start) * 1e6)  # but not hopeless
        try:
            long_request(wire, embedding, model=model, steps=400, timeout_us=too_little)()
        except InferenceServerException as error:
            late = error
            break
    assert late is not None and "the deadline passed at step" in late.message()
    assert late.status() == "StatusCode.UNAVAILABLE"
    assert wire.control("denoiser_64", "ping")["active"] == 0


def test_the_stages_of_an_ensemble_share_one_deadline(wire: Any, embedding: np.ndarray) -> None:
    """Triton gives each of them the whole of it."""

    def once(**options: int) -> float:
        inputs = {name: np.array([[value]], dtype=np.int32) for name, value in options.items()}
        start = time.monotonic()
        wire.infer("id3pm", ["image"], embedding=embedding[None], seed=np.array([[1]]), **inputs)
        return time.monotonic() - start

    def seconds(**options: int) -> float:
        """The least of three: other work on this machine may have slowed one."""
        return min(once(**options) for _ in range(3))

    sr_steps = 1
    while (first := seconds(steps=400)) and (second := seconds(steps=1, sr_steps=sr_steps)) < 0.6 * first:
        sr_steps = min(1000, max(sr_steps + 1, int(sr_steps * 0.9 * first / second)))
    limit_us = int(1.2 * max(first, second) * 1e6)  # enough for either, and for both it is not
    with pytest.raises(InferenceServerException, match="deadline") as caught:
        more = {"sr_steps": np.array([[sr_steps]], dtype=np.int32)}
        long_request(wire, embedding, steps=400, timeout_us=limit_us, **more)()
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


def test_a_hopeless_deadline_is_refused_at_once(wire: Any, embedding: np.ndarray) -> None:
    before = wire.metrics()['id3pm_engine_rows_total{model="denoiser_64"}']
    with pytest.raises(InferenceServerException, match="the deadline cannot be met: .* are left, and the steps alone"):
        long_request(wire, embedding, timeout_us=100_000)()
    assert wire.metrics()['id3pm_engine_rows_total{model="denoiser_64"}'] == before
