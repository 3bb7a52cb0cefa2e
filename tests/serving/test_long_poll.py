"""Long polls: answered as soon as there is news, without delaying other requests."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from stand_in_triton import StandInEngine, StandInRequest, control, good, state_of
from waiting import wait_until

from id3pm.serving.models import long_poll as long_polls
from id3pm.serving.models import stage_answers
from id3pm.serving.models.diffusion_stages import DenoiserModel


class Stepping:
    """Lets the engine of a stage make one call at a time."""

    def __init__(self, engine: StandInEngine) -> None:
        self._turns = threading.Semaphore(0)
        self._engine = engine
        engine.go.wait = self._wait  # type: ignore[method-assign]

    def _wait(self, timeout: float | None = None) -> bool:
        return self._turns.acquire(timeout=timeout)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self._turns.release()


@pytest.fixture
def stepping(model: DenoiserModel, engine: StandInEngine) -> Any:
    stepping = Stepping(engine)
    yield stepping
    stepping.step(1000)


def watch(model: DenoiserModel, *words: str) -> StandInRequest:
    request = control("watch", *words)
    model.accept(request)
    return request


def test_a_follower_sees_every_step(model: DenoiserModel, stepping: Stepping) -> None:
    work = good(id="work", parameters={"steps": 5})
    model.accept(work)
    seen, last = [], -1
    while True:
        poll = watch(model, "work", str(last))
        if last >= 0:
            assert not poll.responses or last == 4
            stepping.step()
        state = state_of(poll)
        if not state["found"]:
            break
        (row,) = state["rows"]
        last = row["step"]
        seen.append((last, row["preview_png"] is not None))
    assert seen == [(0, False), (1, True), (2, True), (3, True), (4, True)]
    assert work.response().error is None


def test_a_watch_waits_and_others_do_not(model: DenoiserModel, engine: StandInEngine, stepping: Stepping) -> None:
    model.accept(good(id="work"))
    wait_until(lambda: engine.calls == 4)
    poll = watch(model, "work", "0")
    start = time.monotonic()
    ping = control("ping", "")
    model.accept(ping)
    assert state_of(ping)["in_flight"] == 1 and time.monotonic() - start < 0.5
    assert not poll.answered.wait(0.2)
    stepping.step()
    (row,) = state_of(poll)["rows"]
    assert row["step"] == 1
    assert Image.open(io.BytesIO(base64.b64decode(row["preview_png"]))).size == (64, 64)


def test_previews_can_be_left_out(model: DenoiserModel, stepping: Stepping) -> None:
    model.accept(good(id="work"))
    poll = watch(model, "work", "0", "0")
    stepping.step()
    assert state_of(poll)["rows"] == [{"done": False, "step": 1, "steps": 3, "preview_png": None}]


def test_an_unknown_request_is_answered_at_once(model: DenoiserModel) -> None:
    assert state_of(watch(model, "unknown", "-1")) == {"id": "unknown", "found": False}


def test_a_request_on_its_way_to_the_scheduler_does_not_look_done(
    model: DenoiserModel, stepping: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    submit_all = model._scheduler.submit_all

    def slowly(rows: Any) -> None:
        seen.extend([state_of(watch(model, "work", "-1")), state_of(progress("work"))])
        submit_all(rows)

    def progress(name: str) -> StandInRequest:
        request = control("progress", name)
        model.accept(request)
        return request

    monkeypatch.setattr(model._scheduler, "submit_all", slowly)
    model.accept(good(id="work"))
    assert seen == [{"id": "work", "found": False}] * 2
    assert state_of(progress("work"))["rows"][0]["step"] == 0


def test_a_request_that_nobody_waits_for_any_more_before_it_is_submitted_takes_no_steps(
    model: DenoiserModel, engine: StandInEngine, stepping: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_all = model._scheduler.submit_all

    def late(rows: Any) -> None:
        model.accept(control("cancel", "work"))
        assert work.response().error is not None
        submit_all(rows)

    monkeypatch.setattr(model._scheduler, "submit_all", late)
    work = good(id="work")
    model.accept(work)
    wait_until(lambda: model._scheduler.status().waiting + model._scheduler.status().active == 0)


def test_a_cancel_is_news(model: DenoiserModel, stepping: Stepping) -> None:
    model.accept(good(id="work"))
    poll = watch(model, "work", "2")
    model.accept(control("cancel", "work"))
    assert state_of(poll) == {"id": "work", "found": False}


def test_a_watch_without_news_is_answered_in_time(
    model: DenoiserModel, stepping: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_polls, "MAX_WATCH_S", 0.2)
    model.accept(good(id="work"))
    start = time.monotonic()
    (row,) = state_of(watch(model, "work", "0"))["rows"]
    assert row["step"] == 0 and 0.2 <= time.monotonic() - start < 2.0


def test_too_many_watches_become_plain_polls(
    model: DenoiserModel, stepping: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_polls, "MAX_WATCHERS", 1)
    model.accept(good(id="work"))
    first = watch(model, "work", "0")
    assert state_of(watch(model, "work", "0"))["rows"][0]["step"] == 0
    assert not first.responses
    stepping.step()
    assert state_of(first)["rows"][0]["step"] == 1


def test_a_stage_that_stops_answers_those_who_watch(model: DenoiserModel, stepping: Stepping) -> None:
    model.accept(good(id="work"))
    poll = watch(model, "work", "900")
    stepping.step(3)
    model.close()
    assert not state_of(poll)["found"]


@pytest.fixture
def encoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """Pictures are encoded only when allowed; and the names of the threads that did it."""
    allowed, threads = threading.Event(), []
    encode = stage_answers.encode_png

    def slowly(*args: Any, **more: Any) -> bytes:
        threads.append(threading.current_thread().name)
        assert allowed.wait(10)
        return encode(*args, **more)

    monkeypatch.setattr(stage_answers, "encode_png", slowly)
    yield allowed, threads
    allowed.set()


def test_encoding_pictures_for_progress_holds_nobody_up(
    model: DenoiserModel, engine: StandInEngine, stepping: Stepping, encoding: tuple[threading.Event, list[str]]
) -> None:
    allowed, threads = encoding
    model.accept(good(id="work"))
    stepping.step()
    wait_until(lambda: engine.calls == 5)
    polls = [control("progress", "work") for _ in range(10)]
    for poll in polls:
        model.accept(poll)
    ping = control("ping", "")
    model.accept(ping)
    assert state_of(ping)["in_flight"] == 1 and not any(poll.responses for poll in polls)
    allowed.set()
    assert all(state_of(poll)["rows"][0]["preview_png"] for poll in polls)
    assert set(threads) == {"long_polls"}


def test_who_is_one_too_many_gets_no_picture(
    model: DenoiserModel,
    engine: StandInEngine,
    stepping: Stepping,
    encoding: tuple[threading.Event, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_polls, "MAX_WATCHERS", 0)
    model.accept(good(id="work"))
    stepping.step()
    wait_until(lambda: engine.calls == 5)
    assert state_of(watch(model, "work", "-1"))["rows"] == [{"done": False, "step": 1, "steps": 3, "preview_png": None}]
    assert encoding[1] == []


def test_a_look_that_fails_does_not_end_the_thread_of_the_watchers(
    model: DenoiserModel, stepping: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.accept(good(id="work"))
    with monkeypatch.context() as broken:
        broken.setattr(model._long_polls, "_news", lambda request_id, after_step: 1 / 0)
        assert state_of(watch(model, "work", "900"))["found"]
    assert state_of(watch(model, "unknown", "-1")) == {"id": "unknown", "found": False}
