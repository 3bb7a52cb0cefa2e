"""What a stage counts and logs, after a load that is known."""

from __future__ import annotations

import numpy as np
from stand_in_triton import StandInEngine, StandInRequest, StandInTriton, control, good, state_of
from waiting import wait_until

from id3pm.serving.models.diffusion_stages import DenoiserModel

METRICS = StandInTriton.MetricFamily.metrics
LINES = StandInTriton.Logger.lines


def count(name: str) -> float:
    return METRICS[name].value


def test_finished_images_are_counted_before_their_answer(model: DenoiserModel) -> None:
    requests = [good(rows=2), good()]
    for request in requests:
        model.accept(request)
        request.response()
    assert (count("images_total"), count("steps_total"), count("requests_total done")) == (3, 9, 2)
    for histogram in ("queue_seconds", "first_preview_seconds", "image_seconds"):
        assert count(histogram) == 3
    assert count("step_seconds") == count("batch_occupancy")
    assert 6 <= count("step_seconds") <= 9  # rows share a step unless the engine, as timed, gains nothing by it
    assert count("engine_rows_total") == 2 * 9  # guided


def test_a_cancel_counts_the_steps_it_saves_and_frees_the_rows(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    request = good(rows=2, id="unwanted", parameters={"steps": 50})
    model.accept(request)
    wait_until(lambda: engine.calls == 4)
    model.accept(control("cancel", "unwanted"))
    ping = control("ping", "")
    model.accept(ping)
    assert (state_of(ping)["active"], state_of(ping)["backlog_s"]) == (0, 0)
    assert request.response().error.code == "CANCELLED"
    assert count("steps_saved_total") == 100
    assert count("requests_total cancelled") == count("errors_total CANCELLED") == 1


def test_refusals_and_failures_are_counted_by_kind(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.error = RuntimeError("broken")
    failed, invalid = good(), good(parameters={"steps": 0})
    for request in (failed, invalid):
        model.accept(request)
        request.response()
    engine.error = None
    model.accept(control("drain"))
    rejected = good()
    model.accept(rejected)
    assert "retry after" in str(rejected.response().error)
    outcomes = {name: count(f"requests_total {name}") for name in ("failed", "invalid", "rejected", "done")}
    assert outcomes == {"failed": 1, "invalid": 1, "rejected": 1, "done": 0}


def test_gauges_show_what_is_in_flight(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    model.accept(good(rows=3))
    wait_until(lambda: count("active_rows") == 2)
    wait_until(lambda: count("waiting_rows") == 1)
    assert count("backlog_seconds") > 0 and count("paused_rows") == 0


def test_ping_tells_what_a_step_and_the_backlog_take(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    model.accept(good(rows=3))
    ping = control("ping")
    model.accept(ping)
    state = state_of(ping)
    assert state["step_ms"] > 0 and state["backlog_s"] > 0
    assert set(state) >= {"active", "waiting", "in_flight", "loop_age_ms", "draining"}


def test_every_line_about_a_request_has_its_id_and_none_has_its_id_vector(
    model: DenoiserModel, engine: StandInEngine
) -> None:
    LINES.clear()
    secret = 0.8372915
    embedding = np.full((1, 4), secret, np.float32)

    def sent(id: str, **more: object) -> StandInRequest:
        request = StandInRequest(id=id, embedding=embedding, seed=np.array([[1]]), **more)  # type: ignore[arg-type]
        model.accept(request)
        return request

    sent("fine").response()
    sent("wrong", parameters={"steps": 0}).response()
    engine.error = RuntimeError("broken")
    sent("broken").response()
    engine.error = None
    engine.go.clear()
    cancelled = sent("cancelled")
    model.accept(control("cancel", "cancelled"))
    cancelled.response()
    model.accept(control("drain"))
    sent("late\nE forged").response()
    text = "\n".join(LINES)
    for id, level in {"fine": "I", "wrong": "I", "broken": "E", "cancelled": "I", "late\\nE forged": "W"}.items():
        assert any(line.startswith(level) and f"request '{id}" in line for line in LINES), (id, text)
    assert all("request '" in line or "draining: new" in line for line in LINES), text
    assert "0.837" not in text
