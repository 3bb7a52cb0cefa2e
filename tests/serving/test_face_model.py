"""The face stage's model: a photograph at work holds up nobody who only asks how it is going."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stand_in_triton import StandInRequest, StandInTriton, control, state_of, wait_until

from id3pm.face.stage import FaceResult
from id3pm.serving import face
from id3pm.serving.face import FaceModel

ARGS = {"model_repository": "nowhere", "model_version": "1", "model_name": "face_embedding"}


class StandInFaces:
    """Finds a face in everything, when it may."""

    id_vector_model = "sface"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.seen: list[bytes] = []

    def embed(self, photo: bytes, policy: str) -> FaceResult:
        self.seen.append(photo)
        assert self.go.wait(10)
        return FaceResult(np.ones(4, np.float32), np.zeros(15, np.float32), 1)


@pytest.fixture
def faces() -> StandInFaces:
    return StandInFaces()


@pytest.fixture
def model(faces: StandInFaces, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaceModel]:
    monkeypatch.setattr(face.FaceStage, "load", lambda folder, threads: faces)
    running = FaceModel(StandInTriton(), ARGS)
    yield running
    faces.go.set()
    running.close()


def photograph(*photos: bytes, **more: Any) -> StandInRequest:
    request = StandInRequest(photo=np.array([[photo] for photo in photos], dtype=object), **more)
    request.wanted = ["embedding", "faces"]
    return request


def ping(model: FaceModel) -> dict[str, Any]:
    request = control("ping", "")
    model.answer(request)
    return state_of(request)


def test_a_ping_is_answered_while_photographs_are_at_work(model: FaceModel, faces: StandInFaces) -> None:
    faces.go.clear()
    requests = [photograph(b"\xff1", b"\xff2"), photograph(b"\xff3")]
    for request in requests:
        model.answer(request)
    wait_until(lambda: faces.seen)
    time.sleep(0.2)
    state = ping(model)
    assert (state["active"], state["waiting"], state["in_flight"]) == (1, 1, 2) and state["loop_age_ms"] >= 200
    faces.go.set()
    assert [len(request.response().outputs["embedding"]) for request in requests] == [2, 1]
    assert faces.seen == [b"\xff1", b"\xff2", b"\xff3"]
    state = ping(model)
    assert (state["in_flight"], state["loop_age_ms"], state["steps"]) == (0, 0, 2)


def test_who_has_gone_or_is_too_late_costs_no_work(model: FaceModel, faces: StandInFaces) -> None:
    faces.go.clear()
    first, gone, late = (photograph(name) for name in (b"\xff1", b"\xff2", b"\xff3"))
    late.timeout_us = 1000
    for request in (first, gone, late):
        model.answer(request)
    gone.gone = True
    time.sleep(0.01)
    faces.go.set()
    assert first.response().error is None
    assert gone.response().error.code == "CANCELLED"
    assert late.response().error.code == "UNAVAILABLE"
    assert faces.seen == [b"\xff1"]


def test_photographs_beyond_the_bound_are_refused(
    model: FaceModel, faces: StandInFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face, "MAX_WAITING_BYTES", 10)
    faces.go.clear()
    large, small, refused = photograph(b"\xff" * 100), photograph(b"\xff1"), photograph(b"\xff2")
    model.answer(large)
    model.answer(small)
    assert small.response().error.code == "UNAVAILABLE" and "retry after" in str(small.response().error)
    monkeypatch.setattr(face, "MAX_WAITING", 0)
    monkeypatch.setattr(face, "MAX_WAITING_BYTES", 1000)
    model.answer(refused)
    assert refused.response().error.code == "UNAVAILABLE"
    faces.go.set()
    assert large.response().error is None
    wait_until(lambda: ping(model)["in_flight"] == 0)
    again = photograph(b"\xff1")
    model.answer(again)
    assert again.response().error is None


def test_after_a_drain_nothing_new_is_taken_and_other_orders_are_refused(model: FaceModel) -> None:
    drain, other = control("drain", ""), control("describe", "")
    model.answer(drain)
    assert state_of(drain)["draining"]
    model.answer(other)
    assert "this model takes ping and drain" in str(other.response().error)
    request = photograph(b"\xff")
    model.answer(request)
    assert request.response().error.code == "UNAVAILABLE"


def test_the_next_model_learns_what_is_left_of_the_time(model: FaceModel) -> None:
    request = photograph(b"\xff")
    request.wanted, request.timeout_us = ["deadline"], 5_000_000
    model.answer(request)
    assert abs(int(request.response().outputs["deadline"][0, 0]) / 1e9 - time.monotonic() - 5.0) < 1.0
