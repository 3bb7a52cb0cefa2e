"""The numbers in `/metrics` against a load that is known, and what the log says about it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException
from waiting import wait_until

from id3pm.serving.launcher.triton_server import TritonServer

pytestmark = pytest.mark.server
MODEL = "denoiser_64"
ROOT = Path(__file__).parents[2]
IMAGES, STEPS = 5, 7


class Change:
    """How much the metrics of a model have grown since it was made."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire
        self._before = wire.metrics()

    def __call__(self, name: str, model: str = MODEL, **label: str) -> float:
        labels = ",".join(f'{key}="{value}"' for key, value in {"model": model, **label}.items())
        # Triton sorts labels as it likes
        keys = [f"id3pm_{name}{{{labels}}}", f"id3pm_{name}{{{','.join(reversed(labels.split(',')))}}}"]
        after = self._wire.metrics()
        key = next(key for key in keys if key in after)
        return float(after[key] - self._before.get(key, 0.0))


def inputs(embedding: np.ndarray, rows: int = 1, steps: int = STEPS) -> dict[str, np.ndarray]:
    return {
        "embedding": np.repeat(embedding[None], rows, axis=0),
        "seed": np.arange(rows, dtype=np.int64)[:, None],
        "steps": np.full((rows, 1), steps, np.int32),
    }


@pytest.fixture
def busy(wire: Any, embedding: np.ndarray) -> Iterator[Change]:
    """A long request of 16 rows, as many as are sampled at a time; cancelled at the end."""
    answer = wire.start(MODEL, ["image_64"], id="busy", **inputs(embedding, rows=16, steps=1000))
    wait_until(lambda: wire.control(MODEL, "progress", "busy")["found"])
    change = Change(wire)
    yield change
    wire.control(MODEL, "cancel", "busy")
    with pytest.raises(InferenceServerException, match="cancelled"):
        answer()


def test_images_steps_and_requests_are_those_that_were_asked_for(wire: Any, embedding: np.ndarray) -> None:
    change = Change(wire)
    for _ in range(2):
        wire.infer(
            MODEL, ["image_64"], guidance_scale=np.full((IMAGES, 1), 2.0, np.float32), **inputs(embedding, IMAGES)
        )
    assert change("images_total") == 2 * IMAGES
    assert change("steps_total") == 2 * IMAGES * STEPS
    assert change("engine_rows_total") == 2 * IMAGES * STEPS * 2  # guided
    least = 2 * STEPS * 2  # ten rows in calls of eight and two; more, if fewer rows make the engine efficient
    assert least <= change("step_seconds_count") == change("batch_occupancy_count") <= 2 * IMAGES * STEPS
    assert change("batch_occupancy_sum") == pytest.approx(2 * IMAGES * STEPS * 2 / 8)
    for histogram in ("queue_seconds", "first_preview_seconds", "image_seconds"):
        assert change(f"{histogram}_count") == 2 * IMAGES
    assert change("first_preview_seconds_sum") <= change("image_seconds_sum")
    assert change("requests_total", outcome="done") == 2


def test_an_ensemble_is_counted_in_both_stages(wire: Any, embedding: np.ndarray) -> None:
    change = Change(wire)
    wire.infer("id3pm", ["image"], sr_steps=np.array([[3]], np.int32), **inputs(embedding))
    assert (change("steps_total"), change("steps_total", "super_resolution")) == (STEPS, 3)
    assert change("image_seconds_count") == change("image_seconds_count", "super_resolution") == 1


def test_a_cancel_is_counted_with_the_steps_it_saved_on_both_stages(wire: Any, embedding: np.ndarray) -> None:
    small = np.zeros((1, 64, 64, 3), np.uint8)
    seed = np.array([[1]])
    sr = {"image_64": small, "seed": seed, "sr_steps": np.array([[900]], np.int32)}
    unguided = {"guidance_scale": np.array([[1.0]], np.float32)}
    for model, output, sent in (
        (MODEL, "image_64", {**inputs(embedding, steps=900), **unguided}),
        ("super_resolution", "image", sr),
    ):
        change = Change(wire)
        answer = wire.start(model, [output], id="doomed", **sent)
        wait_until(lambda model=model: wire.control(model, "watch", "doomed", "2", "0")["found"])
        wire.control(model, "cancel", "doomed")
        with pytest.raises(InferenceServerException, match="cancelled"):
            answer()
        evaluated = change("engine_rows_total", model)
        assert change("steps_saved_total", model) + evaluated in (900, 901)  # one step may have been under way
        assert 0 < change("steps_saved_total", model) < 900
        assert change("requests_total", model, outcome="cancelled") == 1
        assert change("images_total", model) == 0


def in_flight(wire: Any) -> int:
    status = wire.control(MODEL, "ping")
    return int(status["active"] + status["paused"] + status["waiting"])


def end_all(wire: Any, answers: dict[str, Callable[[], Any]]) -> None:
    for id, answer in answers.items():
        wire.control(MODEL, "cancel", id)
        with pytest.raises(InferenceServerException, match="cancelled"):
            answer()


def test_a_full_queue_refuses_and_counts(wire: Any, embedding: np.ndarray, busy: Change) -> None:
    last = {"priority": np.full((16, 1), 9, np.int32), **inputs(embedding, 16, steps=60)}
    waiting = {f"w{i}": wire.start(MODEL, ["image_64"], id=f"w{i}", **last) for i in range(16)}
    wait_until(lambda: in_flight(wire) == 16 + 256)
    with pytest.raises(InferenceServerException, match=r"256 requests wait.*retry after \d+ s") as caught:
        wire.infer(MODEL, ["image_64"], **inputs(embedding))
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert busy("requests_total", outcome="rejected") == 1
    gauges = [f'id3pm_{kind}_rows{{model="{MODEL}"}}' for kind in ("waiting", "active", "paused")]
    wait_until(lambda: sum(wire.metrics()[gauge] for gauge in gauges) == 16 + 256)
    assert wire.metrics()[gauges[0]] >= 256 and 0 < wire.metrics()[gauges[1]] <= 16
    assert wire.metrics()[f'id3pm_backlog_seconds{{model="{MODEL}"}}'] > 0
    end_all(wire, waiting)


def test_a_short_request_overtakes_sixteen_long_ones(wire: Any, embedding: np.ndarray, busy: Change) -> None:
    alone = wire.infer(MODEL, ["image_64"], id="short", **inputs(embedding))["image_64"]
    assert wire.control(MODEL, "progress", "busy")["found"]
    assert busy("images_total") == 1
    wire.control(MODEL, "cancel", "busy")
    assert np.array_equal(wire.infer(MODEL, ["image_64"], **inputs(embedding))["image_64"], alone)


def test_rows_that_pause_for_others_give_the_same_image(wire: Any, embedding: np.ndarray) -> None:
    sent = {**inputs(embedding, 16, steps=150), "priority": np.full((16, 1), 9, np.int32)}
    alone = wire.infer(MODEL, ["image_64"], **sent)["image_64"]
    paused = wire.start(MODEL, ["image_64"], id="paused", **sent)
    wait_until(lambda: wire.control(MODEL, "watch", "paused", "10", "0")["found"])
    urgent = [
        wire.start(MODEL, ["image_64"], priority=np.zeros((8, 1), np.int32), **inputs(-embedding, 8, steps=40))
        for _ in range(2)
    ]
    wait_until(lambda: wire.control(MODEL, "ping")["paused"] > 0)
    for answer in urgent:
        answer()
    assert wire.control(MODEL, "progress", "paused")["found"]
    assert np.array_equal(paused()["image_64"], alone)


def test_a_request_that_comes_again_is_done_once(wire: Any, embedding: np.ndarray) -> None:
    change = Change(wire)
    sent = inputs(embedding, steps=200)
    answers = [wire.start("id3pm", ["image"], id="once", **sent) for _ in range(3)]
    images = [answer()["image"] for answer in answers]
    images.append(wire.infer("id3pm", ["image"], id="once", **sent)["image"])
    for image in images[1:]:
        assert np.array_equal(image, images[0])
    assert change("images_total") == change("images_total", "super_resolution") == 1
    assert change("joined_total", to="in_flight") + change("joined_total", to="recent") == 3


def test_a_cancel_ends_it_for_all_who_joined(wire: Any, embedding: np.ndarray) -> None:
    answers = [wire.start("id3pm", ["image"], id="shared", **inputs(embedding, steps=1000)) for _ in range(2)]
    change = Change(wire)
    wait_until(lambda: change("joined_total", to="in_flight") == 1)
    wire.control(MODEL, "cancel", "shared")
    for answer in answers:
        with pytest.raises(InferenceServerException, match="cancelled"):
            answer()


def test_the_log_names_the_request(server: TritonServer, wire: Any, embedding: np.ndarray) -> None:
    wire.infer("id3pm", ["image"], id="a-name-in-the-log", **inputs(embedding))
    with pytest.raises(InferenceServerException):
        wire.infer(MODEL, ["image_64"], id="a-bad-one", **inputs(embedding, steps=0))
    wait_until(lambda: sum("'a-name-in-the-log'" in line for line in list(server._log)) >= 2)  # noqa: SLF001
    wait_until(lambda: any("'a-bad-one'" in line and "steps=0" in line for line in list(server._log)))  # noqa: SLF001
    lines = [line for line in server._log if "request '" in line]  # noqa: SLF001
    assert not any(f"{embedding[0]:.4f}" in line for line in lines)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_face_stage_counts_photographs(wire: Any) -> None:
    face = "face_embedding"
    change = Change(wire)
    good = (ROOT / "demo" / "astronaut.jpg").read_bytes()
    wire.infer(face, ["embedding"], photo=np.array([[good], [good]], dtype=object))
    for bad in (b"nonsense", b"", png(np.zeros((64, 64, 3), np.uint8)), b"aGVsbG8="):
        with pytest.raises(InferenceServerException):
            wire.infer(face, ["embedding"], photo=np.array([[bad]], dtype=object))
    assert change("photos_total", face) == 2
    assert change("photos_refused_total", face, reason="image") == 3
    assert change("photos_refused_total", face, reason="no_face") == 1
    assert change("photo_seconds_count", face) == 6
    assert 0 < change("photo_seconds_sum", face) < 10
    assert change("photo_queue_seconds_count", face) == 5
    assert change("requests_total", face, outcome="done") == 1
    assert change("requests_total", face, outcome="invalid") == 4
    assert change("errors_total", face, code="INVALID_ARG") == 4
    wait_until(lambda: wire.metrics()[f'id3pm_waiting_photos{{model="{face}"}}'] == 0)
