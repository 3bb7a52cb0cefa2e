"""Events, requests and cancellation of a stream; for both clients."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest

from id3pm_client import (
    Call,
    ConnectionFailedError,
    GeneratedImage,
    Image64,
    InternalServerError,
    InvalidRequestError,
    OverloadedError,
    Progress,
    Retry,
)
from tests.client.conftest import FakeServer, texts

VECTOR = np.array([0.5, -1.0, 2.0, 0.0])
PIXELS = np.full((6, 5, 3), 200, np.uint8)
STAGES = ("denoiser_64", "super_resolution")


@pytest.fixture(autouse=True)
def _slow(server: FakeServer) -> None:
    server.delay_s = lambda call: None if call.model in STAGES else 0.0


def progress(events: list[Any]) -> list[tuple[str, int, int]]:
    return [(event.stage, event.step, event.steps) for event in events if isinstance(event, Progress)]


def test_a_stream_tells_all_steps_and_ends_with_the_image(client: Any, server: FakeServer) -> None:
    events = list(client.stream(VECTOR, 7, steps=4, sr_steps=3, preset="fast", guidance_scale=2.0))
    first = [("denoiser_64", step, 4) for step in range(4)]
    second = [("super_resolution", step, 3) for step in range(3)]
    assert progress(events) == first + second
    (image_64,) = (event for event in events if isinstance(event, Image64))
    assert events.index(image_64) == 4, "between the stages"
    assert image_64.image.size == (64, 64)
    image = events[-1]
    assert isinstance(image, GeneratedImage)
    assert (image.seed, image.image.size, image.image.getpixel((0, 0))) == (7, (256, 256), (7, 7, 7))
    assert image.image_64.tobytes() == image_64.image.tobytes()
    assert image.receipt == {"seed": 7, "first": 0.5}, "the receipt of the 64 px stage went along"
    assert image.seconds >= image_64.seconds > 0.0


def test_both_stages_know_the_request_by_one_id_and_get_their_options(client: Any, server: FakeServer) -> None:
    image = list(client.stream(VECTOR, 7, steps=4, sr_steps=3, preset="fast", priority=2))[-1]
    base, sr = server.calls
    assert (base.model, sr.model) == STAGES
    assert base.request_id == sr.request_id == image.request_id
    assert set(base.inputs) == {"embedding", "seed", "steps", "sr_steps", "preset", "priority"}
    assert set(sr.inputs) == {"image_64", "receipt_64", "seed", "sr_steps", "preset", "priority"}
    assert {request_id for _, request_id, _, _ in server.watches} == {image.request_id}
    assert server.timeouts[1] < server.timeouts[0], "one deadline for both"


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3]), (2, [2]), (3, [3]), (0, [])])
def test_previews_come_every_so_many_steps(client: Any, server: FakeServer, every: int, steps: list[int]) -> None:
    events = itertools.takewhile(
        lambda event: isinstance(event, Progress), client.stream(VECTOR, 7, preview_every=every)
    )
    seen = {event.step: event.preview for event in events if event.preview is not None}
    assert sorted(seen) == steps
    assert all(preview.getpixel((0, 0)) == (step, step, step) for step, preview in seen.items())
    asked = [after + 1 for model, _, after, wanted in server.watches if wanted == "1" and model == STAGES[0]]
    assert [step for step in asked if step < 4] == steps, "an unwanted preview is not made"


def test_a_photograph_is_analysed_first(client: Any, server: FakeServer) -> None:
    events = list(client.stream_from_photo(PIXELS, 3, face="only"))
    assert [call.model for call in server.calls] == ["face_embedding", *STAGES]
    assert server.calls[0].inputs["face"].tolist() == [[b"only"]]
    assert server.calls[1].inputs["embedding"].tolist() == [[0, 1, 2, 3]]
    assert events[-1].seed == 3


@pytest.mark.parametrize("stage", STAGES)
def test_leaving_early_stops_the_work_of_either_stage(client: Any, server: FakeServer, stage: str) -> None:
    server.delay_s = lambda call: 60.0 if call.model == stage else 0.05
    stream = client.stream(VECTOR, 7)
    for event in stream:
        if isinstance(event, Progress) and event.stage == stage and event.step == 1:
            break
    stream.close()
    request_id = server.calls[0].request_id
    assert server.given_up == [request_id]
    assert set(server.controls) == {(stage, "cancel", request_id) for stage in STAGES}
    assert server.in_flight == 0


def test_a_finished_stream_cancels_nothing(client: Any, server: FakeServer) -> None:
    server.delay_s = lambda call: 0.02
    stream = client.stream(VECTOR, 7)
    assert any(isinstance(event, GeneratedImage) for event in stream)
    stream.close()
    assert server.controls == []


def test_nothing_is_sent_before_the_first_event_is_asked_for(client: Any, server: FakeServer) -> None:
    client.stream(VECTOR, 7).close()
    assert server.calls == []


def test_the_deadline_counts_both_stages(client: Any, server: FakeServer) -> None:
    server.delay_s = lambda call: 0.25 if call.model == STAGES[0] else 60.0
    server.answer = lambda call, good=server.answer: good(call) if call.model == STAGES[0] else None
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 0.5 s"):
        list(client.stream(VECTOR, 7, timeout_s=0.5))
    assert 0.5 <= time.monotonic() - start < 3.0
    assert {op for _, op, _ in server.controls} == {"cancel"}


@pytest.mark.parametrize("error", [OverloadedError("queue full"), ConnectionFailedError("Socket closed")])
@pytest.mark.parametrize("stage", STAGES)
def test_either_stage_is_retried_and_no_step_is_told_twice(
    make_client: Any, server: FakeServer, stage: str, error: Exception
) -> None:
    good, failed = server.answer, []

    def answer(call: Call) -> Any:
        if call.model == stage and not failed:
            failed.append(call)
            raise error
        return good(call)

    server.answer = answer
    events = list(make_client(retry=Retry(first_delay_s=0.01)).stream(VECTOR, 7))
    assert isinstance(events[-1], GeneratedImage)
    steps = progress(events)
    assert len(steps) == len(set(steps))
    assert sum(isinstance(event, Image64) for event in events) == 1
    assert [call.model for call in server.calls].count(stage) == 2
    assert len({call.request_id for call in server.calls}) == 1


def test_a_stream_stays_at_its_server_and_is_watched_there(make_client: Any) -> None:
    servers = tuple(FakeServer() for _ in range(2))
    for server in servers:
        server.delay_s = lambda call: None
    client = make_client(servers, url=["a:1", "b:1"])
    for _ in range(2):
        list(client.stream(VECTOR, 7))
    for server in servers:
        assert [call.model for call in server.calls] == list(STAGES)
        assert {watch[1] for watch in server.watches} == {server.calls[0].request_id}


def test_a_stream_moves_to_another_server_where_its_own_fails(make_client: Any) -> None:
    servers = tuple(FakeServer() for _ in range(2))
    good = servers[0].answer

    def answer(call: Call) -> Any:
        if call.model == STAGES[1]:
            raise ConnectionFailedError("Socket closed")
        return good(call)

    servers[0].answer = answer
    for server in servers:
        server.delay_s = lambda call: 0.05
    events = list(make_client(servers, url=["a:1", "b:1"]).stream(VECTOR, 7))
    assert isinstance(events[-1], GeneratedImage)
    assert [[call.model for call in server.calls] for server in servers] == [list(STAGES), [STAGES[1]]]


def test_other_requests_go_their_way_while_a_stream_is_held(make_client: Any, server: FakeServer) -> None:
    client = make_client(max_in_flight=1)
    stream = client.stream(VECTOR, 7)
    next(stream)
    assert client.generate(VECTOR, 8).seed == 8
    assert isinstance(list(stream)[-1], GeneratedImage)


def test_a_server_that_cannot_be_watched_says_so(client: Any, server: FakeServer, monkeypatch: Any) -> None:
    monkeypatch.setattr(server, "_watch", lambda *args: (InvalidRequestError("control operation 'watch': choose"), 0.0))
    with pytest.raises(InvalidRequestError, match="control operation 'watch'"):
        list(client.stream(VECTOR, 7))
    assert server.in_flight == 0


def test_progress_that_breaks_the_contract_is_the_servers_fault(
    client: Any, server: FakeServer, monkeypatch: Any
) -> None:
    monkeypatch.setattr(server, "_watch", lambda *args: ({"status": texts('{"found": true, "rows": [{}]}')}, 0.0))
    with pytest.raises(InternalServerError, match="progress lacks what it should tell: KeyError"):
        list(client.stream(VECTOR, 7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(embedding=np.ones((2, 4))), r"embedding has shape \(2, 4\): a stream makes one image"),
        (dict(embedding=None), "embedding=None: pass one vector"),
        (dict(seed=[1, 2]), "seed has 2 elements: a stream makes one image"),
        (dict(seed=-1), "seed=-1: must be between 0"),
        (dict(attributes=np.ones((2, 3))), "attributes has 2 rows for one image"),
        (dict(preview_every=-1), "preview_every=-1: must be an integer of at least 0"),
        (dict(preview_every=1.5), "preview_every=1.5"),
        (dict(timeout_s=0), "timeout_s=0"),
    ],
)
def test_a_bad_argument_is_named_before_the_stream_begins(
    client: Any, server: FakeServer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        client.stream(**{"embedding": VECTOR, "seed": 1, **arguments})
    assert server.calls == []
