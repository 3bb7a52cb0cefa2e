"""The face stage's model: a photograph in progress does not delay control requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stand_in_triton import StandInRequest, StandInTriton, control, state_of
from waiting import wait_until

from id3pm.errors import FaceTooSmallError, ImageError, NoFaceError, SeveralFacesError
from id3pm.face.stage import FaceResult
from id3pm.serving.launcher.health_check import HealthCheckSettings
from id3pm.serving.models import face_embedding as face
from id3pm.serving.models import photo_queue, worker
from id3pm.serving.models.face_embedding import FaceModel
from id3pm.serving.protocol.liveness import hung_thread

ARGS = {"model_repository": "nowhere", "model_version": "1", "model_name": "face_embedding"}


class StandInFaces:
    """Finds a face in everything, when it may."""

    id_vector_model = "sface"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.seen: list[bytes] = []
        self.error: Exception | None = None
        self.works_s = 0.0

    def embed(self, photo: bytes, policy: str, alive: Callable[[], object]) -> FaceResult:
        self.seen.append(photo)
        end = time.monotonic() + self.works_s
        while time.monotonic() < end:
            pass  # as a decoder does, from which nothing is heard
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
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
    model.answer(requests[0])
    wait_until(lambda: faces.seen)
    model.answer(requests[1])
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
    model.answer(first)
    wait_until(lambda: faces.seen)
    for request in (gone, late):
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
    monkeypatch.setattr(photo_queue, "MAX_WAITING_PHOTO_BYTES", 10)
    faces.go.clear()
    large, small, refused = photograph(b"\xff" * 100), photograph(b"\xff1"), photograph(b"\xff2")
    model.answer(large)
    model.answer(small)
    assert small.response().error.code == "UNAVAILABLE" and "retry after" in str(small.response().error)
    monkeypatch.setattr(photo_queue, "MAX_WAITING_PHOTOS", 0)
    monkeypatch.setattr(photo_queue, "MAX_WAITING_PHOTO_BYTES", 1000)
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
    assert "this model takes ping, cancel, drain" in str(other.response().error)
    request = photograph(b"\xff")
    model.answer(request)
    assert request.response().error.code == "UNAVAILABLE"


def test_the_next_model_learns_what_is_left_of_the_time(model: FaceModel) -> None:
    request = photograph(b"\xff")
    request.wanted, request.timeout_us = ["deadline"], 5_000_000
    model.answer(request)
    assert abs(int(request.response().outputs["deadline"][0, 0]) / 1e9 - time.monotonic() - 5.0) < 1.0


def oldest_sign(model: FaceModel, seconds: float) -> int:
    """The greatest age of the last sign of life, by pings that come faster than the supervisor's."""
    end, ages = time.monotonic() + seconds, [0]
    while time.monotonic() < end:
        ages.append(ping(model)["loop_age_ms"])
        time.sleep(0.05)
    return max(ages)


def test_work_that_goes_on_is_a_sign_of_life_however_long_it_takes(model: FaceModel, faces: StandInFaces) -> None:
    faces.works_s = 1.5
    request = photograph(b"\xff1")
    model.answer(request)
    assert oldest_sign(model, 1.2) < 500
    assert ping(model)["in_flight"] == 1
    assert request.response().error is None


def test_work_without_end_is_a_hang(model: FaceModel, faces: StandInFaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LONGEST_PART_S", 0.1)
    faces.works_s = 1.5
    model.answer(photograph(b"\xff1"))
    wait_until(lambda: ping(model)["loop_age_ms"] > 600, 10.0)


def test_a_thread_that_waits_for_ever_is_found_within_five_seconds(model: FaceModel, faces: StandInFaces) -> None:
    faces.go.clear()
    model.answer(photograph(b"\xff1"))
    wait_until(lambda: faces.seen)
    began, health_check_settings = time.monotonic(), HealthCheckSettings()
    while hung_thread(ping(model)) is None:
        assert time.monotonic() - began < 5.0 - health_check_settings.interval_s
        time.sleep(0.1)


def test_those_who_wait_do_not_make_the_one_at_work_older(model: FaceModel, faces: StandInFaces) -> None:
    faces.go.clear()
    model.answer(photograph(b"\xff1"))
    wait_until(lambda: faces.seen)
    time.sleep(0.4)
    model.answer(photograph(b"\xff2"))
    faces.go.set()
    wait_until(lambda: len(faces.seen) == 2)
    faces.go.clear()
    assert ping(model)["loop_age_ms"] < 300


def test_rows_after_the_deadline_cost_no_work(model: FaceModel, faces: StandInFaces) -> None:
    faces.works_s = 0.3
    request = photograph(b"\xff1", b"\xff2")
    request.timeout_us = 200_000
    model.answer(request)
    assert request.response().error.code == "UNAVAILABLE"
    assert faces.seen == [b"\xff1"]


def test_photographs_and_requests_are_counted_by_what_became_of_them(model: FaceModel, faces: StandInFaces) -> None:
    metrics = StandInTriton.MetricFamily.metrics
    names = [name for name in metrics if name.startswith(("photo", "requests_total", "errors_total", "waiting_ph"))]
    before = {name: metrics[name].value for name in names}
    sent = [photograph(b"\xff1", b"\xff2"), photograph(b"")]
    for request in sent:
        model.answer(request)
        request.response()
    for error in (ImageError("x"), NoFaceError("x"), NoFaceError("x"), FaceTooSmallError("x"), SeveralFacesError("x")):
        faces.error = error
        refused = photograph(b"\xff3")
        model.answer(refused)
        assert refused.response().error.code == "INVALID_ARG"
    faces.error = RuntimeError("broken")
    failed = photograph(b"\xff4")
    model.answer(failed)
    assert failed.response().error.code == "INTERNAL"
    model.answer(control("drain", ""))
    model.answer(photograph(b"\xff5"))
    grown = {name: metrics[name].value - before[name] for name in names if metrics[name].value != before[name]}
    assert grown == {
        "photos_total": 2,
        "photos_refused_total image": 2,
        "photos_refused_total no_face": 2,
        "photos_refused_total face_too_small": 1,
        "photos_refused_total several_faces": 1,
        "photo_seconds": 9,
        "photo_queue_seconds": 8,
        "requests_total done": 1,
        "requests_total invalid": 6,
        "requests_total failed": 1,
        "requests_total rejected": 1,
        "errors_total INVALID_ARG": 6,
        "errors_total INTERNAL": 1,
        "errors_total UNAVAILABLE": 1,
    }
