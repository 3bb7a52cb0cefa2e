"""Streaming of an image: every step is reported, the stages get the inputs of the ensembles, errors end it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from fake_stages import PNG, PREVIEW, FakeStages, element

from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.streaming import read_stream_request, stream_image
from id3pm.serving.protocol.status import RefusedError

VECTOR = [0.5] * 128
STAGES = ("face_embedding", "denoiser_64", "super_resolution")


def story(stages_of: Mapping[str, Any], model: str = "id3pm", **body: Any) -> tuple[FakeStages, list[tuple[str, Any]]]:
    source = {"embedding": VECTOR} if model == "id3pm" else {"photo": "cGhvdG8="}
    told: list[tuple[str, Any]] = []

    async def play() -> FakeStages:
        stages = FakeStages(**stages_of)
        stream = read_stream_request(Origin("a", "b"), model, {**source, "seed": 7, **body}, "made-up")
        await asyncio.wait_for(stream_image(stream, stages, lambda name, data: told.append((name, data))), 20)
        return stages

    return asyncio.run(play()), told


def test_every_step_of_both_stages_is_told_in_order_with_its_preview() -> None:
    stages, told = story({})
    assert [name for name, _ in told] == ["progress"] * 4 + ["image_64"] + ["progress"] * 4 + ["image"]
    steps = [(data["stage"], data["step"], data["steps"]) for name, data in told if name == "progress"]
    assert steps == [(stage, step, 4) for stage in ("denoiser_64", "super_resolution") for step in range(4)]
    shown = [data.get("preview_png") for name, data in told if name == "progress"]
    assert shown == [None, PREVIEW, PREVIEW, PREVIEW] * 2
    assert told[4][1]["receipt"] == {"seed": 1}
    assert told[-1][1] == {"png": PNG, "receipt": {"seed": 1, "sr": {}}}
    assert all(words[1:3] == ("watch", "made-up") for words in stages.watches)


def test_previews_come_as_often_as_asked() -> None:
    _, told = story({"steps": 7}, preview_every=3)
    shown = [data["step"] for name, data in told if "preview_png" in data and data["stage"] == "super_resolution"]
    assert shown == [3, 6]
    stages, told = story({}, preview_every=0)
    assert not any("preview_png" in data for _, data in told)
    assert {words[-1] for words in stages.watches} == {"0"}, "a preview that no caller wants is not made"


def test_the_stages_get_what_the_ensemble_gives_them() -> None:
    stages, _ = story({}, steps=12, sr_steps=3, guidance_scale=2.5, priority=0, attributes=[1, -1], sampler="ddim")
    for model in ("denoiser_64", "super_resolution"):
        message = stages.messages[model]
        assert message.id == "made-up"
        inputs = {tensor.name: raw for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)}
        assert inputs["seed"] == struct.pack("<q", 7) and inputs["sr_steps"] == struct.pack("<i", 3)
        assert inputs["priority"] == bytes(4)
        owners = {name: value.string_param for name, value in message.parameters.items()}
        assert owners == {"x-id3pm-owner": "a", "x-id3pm-caller": "b"}
        if model == "denoiser_64":
            assert inputs["steps"] == struct.pack("<i", 12) and inputs["guidance_scale"] == struct.pack("<f", 2.5)
            assert inputs["attributes"] == struct.pack("<ff", 1, -1) and inputs["sampler"] == element("ddim")
        else:
            assert not {"steps", "guidance_scale", "attributes", "sampler"} & set(inputs)
    assert inputs["image_64"] == bytes(64 * 64 * 3), "as the 64 px stage answered"
    assert inputs["receipt_64"][4:] == b'{"seed": 1}'


def test_a_photograph_becomes_the_vector_that_is_sampled() -> None:
    stages, told = story({}, "id3pm_photo", face="only")
    face = stages.messages["face_embedding"]
    assert [(tensor.name, raw[4:]) for tensor, raw in zip(face.inputs, face.raw_input_contents, strict=True)] == [
        ("photo", b"cGhvdG8="),
        ("face", b"only"),
    ]
    assert stages.messages["denoiser_64"].raw_input_contents[0] == struct.pack("<128f", *[1.0] * 128)
    assert told[-1][0] == "image"
    assert told[0] == ("face", {"faces": 2, "turned": -90}), "the first event, once"
    assert [name for name, _ in told].count("face") == 1


def test_a_vector_has_no_face_to_report() -> None:
    assert "face" not in [name for name, _ in story({})[1]]


def test_a_stage_that_refuses_before_its_first_step_is_the_only_thing_told() -> None:
    told: list[str] = []

    async def play() -> None:
        stream = read_stream_request(Origin("a", "b"), "id3pm_photo", {"photo": "cGhvdG8=", "seed": 1}, "x")
        stages = FakeStages(denoiser_64=RefusedError("too_many_requests", "full"))
        await stream_image(stream, stages, lambda name, data: told.append(name))

    with pytest.raises(RefusedError, match="full"):
        asyncio.run(play())
    assert told == [], "it becomes a plain HTTP error"


@pytest.mark.parametrize("model", ["face_embedding", "denoiser_64", "super_resolution"])
def test_the_error_of_a_stage_ends_the_story(model: str) -> None:
    with pytest.raises(RefusedError, match="no face"):
        story({model: RefusedError("invalid_argument", "no face")}, "id3pm_photo")


def test_a_stage_that_cannot_be_watched_still_makes_the_image() -> None:
    class Blind(FakeStages):
        async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
            raise RefusedError("invalid_argument", "control operation 'watch': choose one of ping")

    async def play() -> list[str]:
        told: list[str] = []
        stream = read_stream_request(Origin("a", "b"), "id3pm", {"embedding": VECTOR, "seed": 1}, "x")
        await stream_image(stream, Blind(step_s=0.01), lambda name, data: told.append(name))
        return told

    assert asyncio.run(play()) == ["image_64", "image"]


@pytest.mark.parametrize("way", ["no news", "not arrived", "sampled"])
def test_a_stage_that_has_nothing_new_is_not_asked_without_pause(way: str) -> None:
    """More watch than it has room for, and then it answers each at once."""
    rows = {"no news": [{"done": False, "step": 0, "steps": 9}], "sampled": [{"done": True}]}

    class Crowded(FakeStages):
        async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
            self.watches.append((model, *words))
            return {"id": words[1], "found": way in rows, "rows": rows.get(way)}

    async def play() -> int:
        stream = read_stream_request(Origin("a", "b"), "id3pm", {"embedding": VECTOR, "seed": 1}, "x")
        stages = Crowded(steps=8, step_s=0.1)
        await stream_image(stream, stages, lambda name, data: None)
        return len(stages.watches)

    assert asyncio.run(play()) < 25, "in two times 0.9 s"


@pytest.mark.parametrize(
    ("model", "body", "reason"),
    [
        ("id3pm", {}, "embedding is missing: send a list of numbers"),
        ("id3pm", {"embedding": [1, "2"]}, "embedding=[1, '2']: must be numbers"),
        ("id3pm", {"embedding": [True]}, "embedding=[true]: must be numbers"),
        ("id3pm", {"embedding": VECTOR, "preview_every": -1}, "preview_every=-1: must be a whole number, 0 .. 1000"),
        ("id3pm", {"embedding": VECTOR, "preview_every": 1.5}, "preview_every=1.5"),
        ("id3pm", {"embedding": VECTOR, "priority": "high"}, "priority='high': must be a whole number"),
        ("id3pm", {"embedding": VECTOR, "num_inference_steps": 5}, "did you mean steps?"),
        ("id3pm", {"embedding": VECTOR, "timeout": "5"}, "timeout='5': expected a whole number of microseconds"),
        ("id3pm", {"embedding": VECTOR, "timeout": 1.5}, "timeout=1.5: expected a whole number of microseconds"),
        ("id3pm", {"embedding": VECTOR, "timeout": True}, "timeout=true: expected a whole number"),
        ("id3pm", {"embedding": VECTOR, "timeout": -1}, "timeout=-1: expected a whole number"),
        ("id3pm", {"embedding": VECTOR, "timeout": 10**13}, "at most 1000000000000"),
        ("id3pm", {"embedding": VECTOR, "id": 5}, "id=5: must be text"),
        ("id3pm", {"embedding": VECTOR, "steps": {"a": 1}}, "steps={'a': 1}: must be a whole number"),
        ("id3pm", {"embedding": VECTOR, "steps": [1, 2]}, "input 'steps': shape=[1, 2]: must be [images, 1]"),
        ("id3pm", {"embedding": VECTOR, "id": "a\r\nb"}, "id='a\\r\\nb': must be printable"),
        ("id3pm", {"embedding": VECTOR, "id": "\ud800"}, "must be printable"),
        ("id3pm", {"embedding": VECTOR, "sampler": "\ud800"}, "sampler='\\ud800': must be Unicode"),
        ("id3pm", {"embedding": VECTOR, "\ud800": 1}, "name of a parameter='\\ud800': must be Unicode"),
        ("id3pm_photo", {"photo": "\ud800"}, "photo='\\ud800': must be Unicode"),
        ("id3pm_photo", {}, "photo is missing"),
        ("id3pm_photo", {"photo": 5}, "photo=5: must be text"),
    ],
)
def test_what_no_stage_could_understand_is_refused(model: str, body: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_stream_request(Origin("a", "b"), model, body, "x")
    assert caught.value.code == "invalid_argument" and reason in str(caught.value)


def test_numbers_without_a_place_in_64_bits_reach_the_stage_which_knows_the_rule() -> None:
    stream = read_stream_request(Origin("a", "b"), "id3pm", {"embedding": [10**400, *VECTOR], "seed": 2**63}, "x")
    assert stream.message.parameters["seed"].string_param == str(2**63)
    assert stream.message.raw_input_contents[0][:4] == struct.pack("<f", float("inf"))


def test_null_is_as_good_as_left_out() -> None:
    stream = read_stream_request(
        Origin("a", "b"), "id3pm", {"embedding": VECTOR, "steps": None, "parameters": {"sampler": None}}, "x"
    )
    assert [tensor.name for tensor in stream.message.inputs] == ["embedding"] and not stream.message.parameters


def test_the_time_limit_counts_once_for_all_stages() -> None:
    stages, _ = story({"step_s": 0.2}, model="id3pm_photo", timeout=10_000_000)
    sent = [stages.messages[name].parameters["timeout"].int64_param / 1e6 for name in STAGES]
    assert 9.0 < sent[0] <= 10.0, "the photograph's analysis has a limit, too"
    assert sent[1] <= sent[0] - 0.2
    assert sent[2] <= sent[1] - 0.8, "what the first stage took is not there for the second"
    waited = [stages.limits[name] for name in STAGES]
    assert all(limit == pytest.approx(left + 0.5, abs=0.01) for limit, left in zip(waited, sent, strict=True))


def test_a_stage_that_would_begin_after_the_deadline_is_not_asked() -> None:
    stages = FakeStages(step_s=0.2)

    async def play() -> None:
        body = {"photo": "cGhvdG8=", "seed": 1, "timeout": 300_000}
        stream = read_stream_request(Origin("a", "b"), "id3pm_photo", body, "x")
        await stream_image(stream, stages, lambda name, data: None)

    with pytest.raises(RefusedError, match="the deadline passed before super_resolution could begin") as caught:
        asyncio.run(play())
    assert (caught.value.code, caught.value.status) == ("deadline_exceeded", 504)
    assert "super_resolution" not in stages.messages


def test_without_a_time_limit_none_is_sent() -> None:
    stages, _ = story({}, timeout=0)
    assert set(stages.limits.values()) == {None}
    assert not any("timeout" in message.parameters for message in stages.messages.values())
