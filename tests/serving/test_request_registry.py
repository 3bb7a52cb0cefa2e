"""A request that is sent again under its id joins or gets the same answer; no work is done twice."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in_triton import StandInEngine, StandInRequest, StandInTriton, control, good, state_of
from waiting import wait_until

from id3pm.serving.models import request_registry
from id3pm.serving.models.diffusion_stages import DenoiserModel
from id3pm.serving.protocol.wire import OWNER


def count(name: str) -> float:
    return StandInTriton.MetricFamily.metrics[name].value


@pytest.fixture
def first(model: DenoiserModel, engine: StandInEngine) -> StandInRequest:
    """A request that is in flight until `engine.go` is set."""
    engine.go.clear()
    request = good(rows=2, id="same")
    model.accept(request)
    return request


def test_a_request_that_comes_again_joins_the_one_in_flight(
    model: DenoiserModel, engine: StandInEngine, first: StandInRequest
) -> None:
    again = good(rows=2, id="same")
    model.accept(again)
    before = engine.rows
    engine.go.set()
    outputs = [request.response().outputs for request in (first, again)]
    assert np.array_equal(outputs[0]["image_64"], outputs[1]["image_64"])
    assert engine.rows <= before + 2 * 2 * 3  # two images, guided, three steps, once
    assert (count("images_total"), count("joined_total in_flight"), count("requests_total done")) == (2, 1, 2)


def test_options_as_parameters_and_another_time_limit_are_the_same_content(
    model: DenoiserModel, engine: StandInEngine, first: StandInRequest
) -> None:
    again = good(rows=2, id="same", parameters={"priority": 2, "timeout": 9_000_000, "steps": 3})
    model.accept(again)
    engine.go.set()
    assert again.response().error is None and first.response().error is None
    assert count("joined_total in_flight") == 1


@pytest.mark.parametrize("what", ["embedding", "seed", "option", "outputs", "rows"])
def test_the_same_id_with_other_content_is_refused(
    model: DenoiserModel, engine: StandInEngine, first: StandInRequest, what: str
) -> None:
    other = good(rows=3 if what == "rows" else 2, id="same", parameters={"steps": 4} if what == "option" else None)
    if what in ("embedding", "seed"):
        next(tensor for tensor in other.tensors if tensor.name() == what).array[1] += 1
    if what == "outputs":
        other.wanted = ["image_64"]
    model.accept(other)
    error = other.response().error
    assert error.code == "INVALID_ARG" and "'same' is in flight already with other inputs" in str(error)
    engine.go.set()
    assert first.response().error is None


def test_an_answer_of_the_last_minute_is_given_again(model: DenoiserModel, engine: StandInEngine) -> None:
    first, again, other = good(id="same"), good(id="same"), good(id="same", parameters={"steps": 4})
    model.accept(first)
    image = first.response().outputs["image_64"]
    calls = engine.calls
    model.accept(again)
    assert np.array_equal(again.response().outputs["image_64"], image)
    assert engine.calls == calls and count("joined_total recent") == 1
    model.accept(other)  # an id that is free again may name something else
    assert other.response().error is None
    assert engine.calls == calls + 4


@pytest.mark.parametrize(("limit", "value"), [("KEPT_BYTES", 100), ("KEPT_S", 0.0)])
def test_what_was_answered_is_kept_within_bounds(
    model: DenoiserModel, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(request_registry, limit, value)
    for _ in range(2):
        request = good(id="same")
        model.accept(request)
        assert request.response().error is None
    assert engine.calls == 3 + 2 * 3  # the warm-up, and twice three steps


def test_requests_without_an_id_never_join(model: DenoiserModel, engine: StandInEngine) -> None:
    requests = [good(), good()]
    for request in requests:
        model.accept(request)
    for request in requests:
        assert request.response().error is None
    assert count("images_total") == 2 and count("joined_total in_flight") == 0


def test_an_error_is_not_kept(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.error = RuntimeError("broken")
    first, again = good(id="same"), good(id="same")
    model.accept(first)
    assert first.response().error.code == "INTERNAL"
    engine.error = None
    model.accept(again)
    assert again.response().error is None


def test_a_cancel_ends_it_for_all_who_joined(
    model: DenoiserModel, engine: StandInEngine, first: StandInRequest
) -> None:
    again = good(rows=2, id="same")
    model.accept(again)
    cancel = control("cancel", "same")
    model.accept(cancel)
    assert state_of(cancel) == {"id": "same", "found": True}
    assert [request.response().error.code for request in (first, again)] == ["CANCELLED", "CANCELLED"]


def test_work_goes_on_while_anybody_waits_for_it(
    model: DenoiserModel, engine: StandInEngine, first: StandInRequest
) -> None:
    again = good(rows=2, id="same")
    model.accept(again)
    first.gone = True
    assert not first.answered.wait(0.6)
    engine.go.set()
    assert again.response().error is None


def test_a_request_that_comes_while_its_first_attempt_is_being_cancelled_begins_anew(
    model: DenoiserModel, engine: StandInEngine, first: StandInRequest
) -> None:
    model._answers.put(lambda: engine.go.wait(10))  # noqa: SLF001 the first attempt is not answered before the retry
    model.accept(control("cancel", "same"))
    again = good(rows=2, id="same")
    model.accept(again)
    engine.go.set()
    assert first.response().error.code == "CANCELLED"
    assert again.response().error is None


def test_the_deadline_of_the_most_patient_counts(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    hasty, patient = good(id="same"), good(id="same")
    hasty.timeout_us = 200_000
    model.accept(hasty)
    model.accept(patient)
    wait_until(lambda: engine.calls == 4)
    assert not hasty.answered.wait(0.4)
    engine.go.set()
    assert patient.response().error is None and hasty.response().error is None


@pytest.mark.parametrize("size", [0, 100_000])
def test_answers_that_are_kept_have_a_bound_in_bytes_however_small_they_are(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(request_registry, "KEPT_BYTES", 1_000_000)
    registry = request_registry.RequestRegistry()
    for number in range(1000):
        outputs = {"image_64": np.zeros(size, np.uint8)}
        registry._keep(("owner", f"{number:0256}"), b"content", outputs)
    assert 1 <= len(registry._kept) <= 1_000_000 / (size + request_registry.ENTRY_BYTES)
    assert registry._kept_bytes == len(registry._kept) * (size + request_registry.ENTRY_BYTES)
    assert next(reversed(registry._kept)) == ("owner", f"{999:0256}")


def test_ids_of_two_owners_have_nothing_to_do_with_each_other(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    requests = [good(id="same", parameters={OWNER: owner, "seed": 1}) for owner in ("one", "two")]
    for seed, request in enumerate(requests):
        request.tensors = [tensor for tensor in request.tensors if tensor.name() != "seed"]
        request._parameters["seed"] = seed
        model.accept(request)
    wait_until(lambda: engine.calls)

    def ask(op: str, owner: str | None) -> bool:
        question = control(op, "same")
        question._parameters = {} if owner is None else {OWNER: owner}
        model.accept(question)
        found: bool = state_of(question)["found"]
        return found

    assert ask("progress", "one") and ask("progress", None) and not ask("progress", "three")
    assert not ask("cancel", "three") and ask("cancel", "one")
    assert requests[0].response().error.code == "CANCELLED"
    assert not ask("progress", "one") and ask("progress", "two")
    assert ask("cancel", None), "the operator's"
    assert requests[1].response().error.code == "CANCELLED"
