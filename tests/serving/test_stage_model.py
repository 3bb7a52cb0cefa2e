"""The stage model behind a stand-in for Triton's Python backend: every request is answered exactly once."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in_triton import UNET, StandInEngine, StandInRequest, StandInTriton, control, good, state_of

from id3pm.config import to_json
from id3pm.errors import ConfigError, DeadlineError, EngineError, FaceError, OverloadedError
from id3pm.sampling.compute_lock import NoComputeLock
from id3pm.sampling.presets import PRESETS
from id3pm.serving.models import model_args
from id3pm.serving.models.diffusion_stages import DenoiserModel
from id3pm.serving.models.triton_backend import code_of, describe, read_request


def test_a_request_gets_images_and_receipts(model: DenoiserModel) -> None:
    request = good(rows=3)
    model.accept(request)
    outputs = request.response().outputs
    assert outputs["image_64"].shape == (3, 64, 64, 3)
    assert [json.loads(text)["seed"] for text in outputs["receipt_64"][:, 0]] == [0, 1, 2]


def test_vectors_of_another_model_are_refused_before_any_work(model: DenoiserModel) -> None:
    ours, theirs = (np.array([[name]], dtype=object) for name in (b"sface", b"facenet:20180402-114759-vggface2"))
    accepted, refused = good(id_vector_model=ours), good(rows=2, id_vector_model=np.concatenate([ours, theirs]))
    for request in (accepted, refused):
        model.accept(request)
    assert accepted.response().error is None
    error = refused.response().error
    assert error.code == "INVALID_ARG"
    assert "row 1: id_vector_model='facenet:20180402-114759-vggface2': this server's bundle takes" in str(error)
    assert "ID vectors of 'sface'" in str(error)


def test_an_engine_that_fails_fails_its_requests_and_nothing_else(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.error = RuntimeError("/secret/path is broken")
    failed = good(rows=2)
    model.accept(failed)
    error = failed.response().error
    assert error.code == "INTERNAL" and "RuntimeError" in str(error) and "/secret" not in str(error)
    engine.error = None
    request = good()
    model.accept(request)
    assert request.response().error is None


def test_a_batch_that_does_not_fit_the_queue_is_refused_as_a_whole(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    busy = good(rows=3, id="busy")
    model.accept(busy)
    refused = good(rows=2, id="refused")
    model.accept(refused)
    assert refused.response().error.code == "UNAVAILABLE"
    engine.go.set()
    assert busy.response().error is None


def test_a_caller_who_has_gone_frees_the_rows(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    request = good(rows=2)
    model.accept(request)
    request.gone = True
    assert request.response().error.code == "CANCELLED"
    ping = control("ping", "")
    model.accept(ping)
    state = state_of(ping)
    assert (state["active"], state["waiting"]) == (0, 0)


def test_draining_refuses_new_work_and_finishes_the_old(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    old = good()
    model.accept(old)
    drain = control("drain", "")
    model.accept(drain)
    assert state_of(drain)["draining"]
    new = good()
    model.accept(new)
    assert new.response().error.code == "UNAVAILABLE"
    engine.go.set()
    assert old.response().error is None


def test_a_stage_refuses_the_sampler_of_students_by_the_name_that_was_sent(model: DenoiserModel) -> None:
    asked = good(parameters={"sampler": "student", "steps": 2})
    model.accept(asked)
    assert "sampler='student': this bundle is no student" in str(asked.response().error)


def test_a_stage_describes_what_may_be_asked_for(model: DenoiserModel) -> None:
    plain = control("describe", "")
    model.accept(plain)
    state = state_of(plain)
    presets = state.pop("presets")
    known = {"bundle": "stand-in", "id_vector_model": "sface", "identity_dim": UNET.identity_dim}
    options = {"image_size": UNET.image_size, "defaults": to_json(model.manifest.sampling)}
    options["guidance_range"] = None
    assert state == {**known, "l2_normalised": False, "attribute_set": None, "attributes": [], **options}
    assert presets["fast"] == to_json(PRESETS["fast"].base)
    assert list(presets) == list(PRESETS)
    model.manifest.attribute_set = "landmarks"
    conditioned = control("describe", "")
    model.accept(conditioned)
    state = state_of(conditioned)
    assert state["attribute_set"] == "landmarks"
    assert state["attributes"][1] == {
        "name": "yaw", "group": "head pose", "low": -35.0, "high": 35.0, "unit": "degrees", "default": None,
        "free": True, "needed": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"id": "x" * 257}, "the request id has 257 characters: at most 256"),
        ({"parameters": {"preset": "x" * 2**24}}, "the request parameters have 16777230 characters together: at most"),
        ({"sampler": np.full((1, 65), b"ddpm", dtype=object)}, "sampler has 65 strings: at most 64 are allowed"),
        ({"attributes": np.zeros((1, 2**21), np.float32)}, "attributes has 2097152 numbers: at most 1048576"),
    ],
)
def test_what_is_too_long_is_refused_before_it_is_looked_at(model: DenoiserModel, sent: Any, words: str) -> None:
    request = good(**sent)
    model.accept(request)
    error = request.response().error
    assert error.code == "INVALID_ARG" and words in str(error)
    assert max(map(len, StandInTriton.Logger.lines)) < 500


def test_an_error_of_any_length_is_cut_for_its_sender_and_for_the_log(
    model: DenoiserModel, engine: StandInEngine
) -> None:
    engine.error = EngineError("x" * 5000)
    request = good()
    model.accept(request)
    assert 1000 < len(str(request.response().error)) < 2000
    (line,) = [line for line in StandInTriton.Logger.lines if "INTERNAL" in line]
    assert len(line) < 2000


def encoded(*strings: bytes) -> np.ndarray:
    """As Triton hands a string tensor to its Python backend."""
    data = b"".join(len(string).to_bytes(4, "little") + string for string in strings)
    return np.frombuffer(data, dtype=np.uint8)


def test_tritons_backend_reads_strings_as_ever_but_never_millions(model: DenoiserModel) -> None:
    read = model._pb.deserialize_bytes_tensor
    assert read(encoded(b"ping", b"", b"\xff\0")).reshape([1, 3]).tolist() == [[b"ping", b"", b"\xff\0"]]
    assert read(encoded()).shape == (0,)
    many = np.zeros(4 * 2**20, dtype=np.uint8)
    began = time.monotonic()
    words = read(many).reshape([1, 2**20])
    assert time.monotonic() - began < 0.1
    request = StandInRequest(control=words)
    model.accept(request)
    assert "control has 1048576 strings: at most 64 are allowed" in str(request.response().error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FaceError("no face"), "INVALID_ARG"),
        (OverloadedError("full"), "UNAVAILABLE"),
        (DeadlineError("late"), "UNAVAILABLE"),
        (EngineError("broken"), "INTERNAL"),
    ],
)
def test_errors_keep_their_message_and_get_tritons_code(error: Exception, code: str) -> None:
    assert (code_of(error), describe(error).text) == (code, str(error))


def test_the_text_of_an_unforeseen_error_stays_in_the_log() -> None:
    code, message, _ = describe(FileNotFoundError("/secret/path"))
    assert code == "internal" and "FileNotFoundError" in message and "/secret" not in message


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_bad_number_of_threads_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ID3PM_THREADS", value)
    with pytest.raises(ConfigError, match="ID3PM_THREADS"):
        model_args.threads()


@pytest.mark.parametrize(
    ("kind", "device_id", "target", "device"),
    [("GPU", "1", "tensorrt", "cuda:1"), ("GPU", "1", "onnx-cpu", "cpu"), ("GPU", "1", "openvino-cpu", "cpu")]
    + [("CPU", "0", "onnx-cuda", "cuda:0")],
)
def test_an_engine_runs_where_it_was_built_for(kind: str, device_id: str, target: str, device: str) -> None:
    args = {"model_instance_kind": kind, "model_instance_device_id": device_id}
    assert model_args.device_of(args, target) == device


@pytest.mark.parametrize(
    ("group", "count"),
    [({"kind": "KIND_GPU", "count": 1, "gpus": [0, 1]}, 2), ({"kind": "KIND_CPU", "count": 3, "gpus": []}, 3)],
)
def test_a_second_instance_of_a_stage_is_refused(group: dict[str, object], count: int) -> None:
    args = {"model_name": "denoiser_64", "model_config": json.dumps({"instance_group": [group]})}
    with pytest.raises(ConfigError, match=f"denoiser_64 would have {count} instances.*CUDA_VISIBLE_DEVICES"):
        model_args.require_one_instance(args)


@pytest.mark.parametrize("group", [{"kind": "KIND_GPU", "count": 1, "gpus": [1]}, {"kind": "KIND_CPU", "count": 1}])
def test_one_instance_is_served(group: dict[str, object]) -> None:
    model_args.require_one_instance({"model_name": "x", "model_config": json.dumps({"instance_group": [group]})})


def wanting_deadline(**more: Any) -> StandInRequest:
    request = good(rows=2, **more)
    request.wanted = ["image_64", "deadline_64"]
    return request


def test_the_next_stage_learns_what_is_left_of_the_time(model: DenoiserModel) -> None:
    request, patient = wanting_deadline(), wanting_deadline()
    request.timeout_us = 5_000_000
    before = time.monotonic()
    model.accept(request)
    made = request.response().outputs["deadline_64"]
    assert made.shape == (2, 1) and made.dtype == np.int64
    assert before + 5.0 <= made[0, 0] / 1e9 <= time.monotonic() + 5.0
    model.accept(patient)
    assert patient.response().outputs["deadline_64"].tolist() == [[0], [0]]
    following = StandInRequest(image_64=np.zeros(1), deadline_64=made)
    following.timeout_us = 60_000_000
    call = read_request(following)
    assert call.deadline == made[0, 0] / 1e9 and set(call.tensors) == {"image_64"}
    following.timeout_us = 1_000
    limit = read_request(following).deadline
    assert limit is not None and limit < time.monotonic() + 1.0, "the earlier of the two"
    assert read_request(StandInRequest(image_64=np.zeros(1), deadline_64=np.zeros((1, 1), np.int64))).deadline is None


def test_who_gets_an_answer_of_a_moment_ago_passes_his_own_deadline_on(model: DenoiserModel) -> None:
    first, again = wanting_deadline(id="same"), wanting_deadline(id="same")
    first.timeout_us, again.timeout_us = 5_000_000, 50_000_000
    for request in (first, again):
        model.accept(request)
        request.response()
    limits = [int(request.response().outputs["deadline_64"][0, 0]) for request in (first, again)]
    assert limits[1] - limits[0] > 40e9


def test_a_deadline_that_was_passed_on_and_is_over_ends_the_request(model: DenoiserModel) -> None:
    request = good(deadline=np.ones((1, 1), np.int64))
    model.accept(request)
    error = request.response().error
    assert error.code == "UNAVAILABLE" and "deadline" in str(error)


def test_without_space_for_the_file_of_turns_a_stage_serves_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(model_args.COMPUTE_LOCK_VARIABLE, str(tmp_path / "compute_lock"))
    model_args.compute_lock("onnx-cpu", 0, 2).close()
    monkeypatch.setattr(os, "posix_fallocate", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
    assert isinstance(model_args.compute_lock("onnx-cpu", 0, 2), NoComputeLock)


def test_a_stage_that_cannot_fill_the_calls_of_its_engine_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def warned(target: str, buckets: str, max_rows: int) -> bool:
        caplog.clear()
        manifest: Any = types.SimpleNamespace(target=target, buckets=buckets, max_batch=16, unet=UNET)
        with caplog.at_level(logging.WARNING):
            model_args.warn_of_empty_rows(manifest, max_rows)
        return bool(caplog.records)

    assert warned("tensorrt", "exact", 4) and "max_rows=4 in config.pbtxt fills 8" in caplog.text
    assert not warned("tensorrt", "exact", 8), "each image may need two rows"
    assert not warned("tensorrt", "fast", 4) and not warned("onnx-cpu", "exact", 4)
