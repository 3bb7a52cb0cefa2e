"""The face stage's queue: order, refusals, and photographs of disconnected callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stand_in_triton import StandInRequest, StandInTriton, control, state_of
from test_face_model import ARGS, StandInFaces, photograph
from waiting import wait_until

from id3pm.face.stage import FaceResult
from id3pm.serving.models import face_embedding as face
from id3pm.serving.models import photo_queue
from id3pm.serving.models.face_embedding import FaceModel
from id3pm.serving.protocol.wire import CALLER, OWNER

SLOW, QUICK = b"\xffslow", b"\xffquick"


class Decoder(StandInFaces):
    """Decodes for as long as it may, with signs of life."""

    def embed(self, photo: bytes, policy: str, alive: Callable[[], object]) -> FaceResult:
        self.seen.append(photo)
        while not self.go.wait(0.005):
            try:
                alive()
            except Exception as error:
                raise OSError("decoders make errors of their own of what stops them") from error
        return FaceResult(np.ones(4, np.float32), np.zeros(15, np.float32), 1)


@pytest.fixture
def faces() -> Decoder:
    return Decoder()


@pytest.fixture
def model(faces: Decoder, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaceModel]:
    monkeypatch.setattr(face.FaceStage, "load", lambda folder, threads: faces)
    monkeypatch.setattr(face, "decoding_s", lambda photo, whole=False: 5.0 if photo.startswith(SLOW) else 0.1)
    running = FaceModel(StandInTriton(), ARGS)
    yield running
    faces.go.set()
    running.close()


def sent(model: FaceModel, photo: bytes, caller: str, id: str = "", owner: str | None = None) -> StandInRequest:
    parameters = {CALLER: caller} | ({} if owner is None else {OWNER: owner})
    request = photograph(photo, id=id, parameters=parameters)
    model.answer(request)
    return request


def cancel(model: FaceModel, id: str, owner: str | None = None) -> bool:
    request = control("cancel", id)
    request._parameters = {} if owner is None else {OWNER: owner}
    model.answer(request)
    found: bool = state_of(request)["found"]
    return found


def test_the_next_photograph_is_that_of_the_caller_who_has_had_least(model: FaceModel, faces: Decoder) -> None:
    faces.go.clear()
    requests = [sent(model, b"\xffhog 0", "hog")]
    wait_until(lambda: faces.seen)
    requests += [sent(model, b"\xffhog %d" % index, "hog") for index in range(1, 4)]
    requests += [sent(model, b"\xfflate %d" % index, "late") for index in range(3)]
    faces.go.set()
    for request in requests:
        assert request.response().error is None
    assert faces.seen[0] == b"\xffhog 0"
    assert sorted(faces.seen[1:3]) == [b"\xffhog 1", b"\xfflate 0"]
    assert sorted(faces.seen[3:5]) == [b"\xffhog 2", b"\xfflate 1"]


def test_an_honest_photograph_does_not_wait_for_slow_ones_of_many_callers(model: FaceModel, faces: Decoder) -> None:
    faces.go.clear()
    slow = [sent(model, SLOW, f"10.0.0.{index}") for index in range(5)]
    wait_until(lambda: faces.seen)
    honest = sent(model, QUICK, "10.0.1.1")
    faces.go.set()
    assert honest.response().error is None and all(request.response().error is None for request in slow)
    assert faces.seen[:2] == [SLOW, QUICK]


def test_a_photograph_that_turns_out_to_be_slow_waits_again(
    model: FaceModel, faces: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of base64 text only the beginning is looked at when it comes."""
    faces.go.clear()
    sent(model, QUICK, "first")
    wait_until(lambda: faces.seen)
    monkeypatch.setattr(face, "photo_bytes", lambda value: SLOW if value == b"text" else value)
    late, quick = sent(model, b"text", "liar"), sent(model, QUICK + b"2", "honest")
    faces.go.set()
    assert late.response().error is None and quick.response().error is None
    assert faces.seen == [QUICK, QUICK + b"2", SLOW]


def test_what_waits_for_a_caller_who_cancels_is_dropped_at_once(model: FaceModel, faces: Decoder) -> None:
    faces.go.clear()
    sent(model, QUICK, "a", id="work", owner="one")
    wait_until(lambda: faces.seen)
    mine, other = (sent(model, QUICK, owner, id="x", owner=owner) for owner in ("one", "two"))
    assert cancel(model, "x", owner="one")
    assert mine.response().error.code == "CANCELLED"
    assert not cancel(model, "x", owner="one"), "it is gone"
    assert not cancel(model, "unknown", owner="one")
    assert not other.responses
    assert cancel(model, "x"), "without an owner it is the operator's"
    assert other.response().error.code == "CANCELLED"


def test_decoding_stops_when_its_caller_has_left(model: FaceModel, faces: Decoder) -> None:
    faces.go.clear()
    at_work = sent(model, SLOW, "a", id="x", owner="one")
    wait_until(lambda: faces.seen)
    waits = sent(model, QUICK, "b")
    assert cancel(model, "x", owner="one")
    assert at_work.response().error.code == "CANCELLED"
    wait_until(lambda: faces.seen == [SLOW, QUICK])
    faces.go.set()
    assert waits.response().error is None


def test_direct_callers_who_leave_are_noticed_too(
    model: FaceModel, faces: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face, "SWEEP_S", 0.0)
    faces.go.clear()
    at_work = sent(model, SLOW, "a")
    wait_until(lambda: faces.seen)
    waits = sent(model, SLOW, "a")
    waits.gone = True
    sent(model, QUICK, "b")  # whoever comes finds him gone
    assert waits.response().error.code == "CANCELLED"
    at_work.gone = True
    assert at_work.response().error.code == "CANCELLED"
    assert faces.seen[:1] == [SLOW]


def test_work_that_photographs_would_make_is_bounded_for_each_caller(
    model: FaceModel, faces: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_queue, "MAX_WAITING_PHOTO_S", 14.0)
    faces.go.clear()
    taken = [sent(model, SLOW, "hog") for _ in range(3)]
    refused = sent(model, SLOW, "hog")
    error = refused.response().error
    assert error.code == "UNAVAILABLE" and "15.0 s of work; retry after 8 s" in str(error)
    assert not sent(model, SLOW, "other").responses, "others have their share"
    assert not any(request.responses for request in taken)


def test_the_pace_of_this_machine_is_learned_from_what_succeeds(model: FaceModel, faces: Decoder) -> None:
    def backlog() -> float:
        request = control("ping", "")
        model.answer(request)
        answer: float = state_of(request)["backlog_s"]
        return answer

    for _ in range(20):
        assert sent(model, SLOW, "a").response().error is None  # 5 s of work in no time
    faces.go.clear()
    sent(model, SLOW, "a")
    wait_until(lambda: backlog() > 0)
    learned = backlog()
    assert 0 < learned < 2.5
    faces.go.set()
    wait_until(lambda: backlog() == 0.0)


def test_a_queue_that_was_cancelled_leaves_nothing_behind(model: FaceModel, faces: Decoder) -> None:
    faces.go.clear()
    sent(model, QUICK, "a")
    wait_until(lambda: faces.seen)
    requests: list[Any] = [sent(model, QUICK, f"c{index}", id=f"{index}") for index in range(50)]
    for index in range(50):
        assert cancel(model, f"{index}")
    assert all(request.response().error.code == "CANCELLED" for request in requests[:3])
    faces.go.set()

    def state() -> dict[str, Any]:
        request = control("ping", "")
        model.answer(request)
        return state_of(request)

    wait_until(lambda: state()["in_flight"] == 0 and state()["backlog_s"] == 0.0)
    assert len(faces.seen) == 1
