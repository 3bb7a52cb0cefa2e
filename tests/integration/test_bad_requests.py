"""Bad requests: the error names the value and the rule, has no path of the server, and the server continues."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.server
VECTOR = np.full((1, 128), 0.1, dtype=np.float32)
SEED = np.array([[1]], dtype=np.int64)
GOOD: dict[str, Any] = {"embedding": VECTOR, "seed": SEED}


def changed(**inputs: Any) -> dict[str, Any]:
    return {**GOOD, **inputs}


def with_value(value: float) -> np.ndarray:
    vector = VECTOR.copy()
    vector[0, 17] = value
    return vector


def int32(value: int) -> np.ndarray:
    return np.array([[value]], dtype=np.int32)


def fp32(value: float) -> np.ndarray:
    return np.array([[value]], dtype=np.float32)


def text(value: str | bytes) -> np.ndarray:
    return np.array([[value]], dtype=object)


@pytest.fixture(autouse=True)
def the_server_goes_on(wire: Any) -> Iterator[None]:
    """After every bad request, a good one is answered, and nothing is left in flight."""
    yield
    assert wire.infer("id3pm", ["image"], steps=int32(1), sr_steps=int32(1), **GOOD)["image"].shape == (1, 256, 256, 3)
    deadline = time.monotonic() + 5.0
    while any(wire.control(stage, "ping")["in_flight"] for stage in ("denoiser_64", "super_resolution")):
        assert time.monotonic() < deadline, "a request is still in flight"


def refusal(wire: Any, model: str, **inputs: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        wire.infer(model, ["image" if model != "face_embedding" else "embedding"], **inputs)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
    message = str(caught.value.message())
    assert "/" not in message.replace("64 -> 256", ""), f"a path leaked: {message}"
    return message


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (changed(embedding=with_value(np.nan)), ["embedding", "not finite"]),
        (changed(embedding=VECTOR[:, :100]), ["embedding", "[100]", "[128]"]),
        ({"seed": SEED}, ["embedding", "missing"]),
        (changed(seed=-SEED), ["seed=-1", "between 0 and"]),
        (changed(sr_steps=int32(0)), ["sr_steps=0", "between 1 and 1000"]),
        (changed(sampler=text("euler")), ["sampler='euler'", "ddpm, ddim, dpmpp_2m"]),
        (changed(sampler=text(b"\xff\xfe")), ["sampler", "UTF-8"]),
        (changed(guidance_low=int32(9), guidance_high=int32(3)), ["guidance_low=9", "guidance_high=3"]),
        (changed(eta=fp32(0.5)), ["eta=0.5", "ddim"]),
        (changed(attributes=np.zeros((1, 5), dtype=np.float32)), ["attributes", "[5]", "[7]"]),
        (changed(attribute_values=text("yaw=-50")), ["yaw=-50", "from -35 to 35 degrees"]),
        (changed(priority=int32(77)), ["priority=77", "between 0"]),
        (changed(parameters={"step": 5}), ["'step' is unknown", "did you mean steps"]),
        (changed(parameters={"steps": True}), ["steps='True'", "a whole number"]),
        (changed(parameters={"steps": 5}, steps=int32(6)), ["steps", "5", "6", "send one"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_values_are_refused_by_name(wire: Any, inputs: dict[str, Any], words: list[str]) -> None:
    message = refusal(wire, "id3pm", **inputs)
    for word in words:
        assert word in message


def test_the_bad_row_of_a_batch_is_named(wire: Any) -> None:
    steps = np.array([[3], [0]], dtype=np.int32)
    message = refusal(wire, "id3pm", embedding=np.vstack([VECTOR, VECTOR]), seed=np.vstack([SEED, SEED]), steps=steps)
    assert "row 1: steps=0" in message


def test_a_bad_option_of_super_resolution_costs_no_work_of_the_64_px_stage(wire: Any) -> None:
    def evaluated() -> float:
        return wire.metrics()['id3pm_engine_rows_total{model="denoiser_64"}']

    before = evaluated()
    for bad in ({"sr_steps": int32(0)}, {"sr_sampler": text("euler")}, {"sr_eta": fp32(2.0)}):
        assert next(iter(bad)) in refusal(wire, "id3pm", steps=int32(1000), **bad, **GOOD)
    assert evaluated() == before


@pytest.mark.parametrize(
    ("receipt", "words"),
    [("{not json", ["JSON"]), ("[]", ["receipt"]), ('{"schema": 1, "stages": {}, "seed": 2}', ["seed 2", "seed 1"])],
)
def test_a_receipt_that_is_none_is_refused(wire: Any, receipt: str, words: list[str]) -> None:
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    message = refusal(wire, "super_resolution", image_64=image, seed=SEED, receipt_64=text(receipt))
    for word in words:
        assert word in message


def a_jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="JPEG")
    return buffer.getvalue()


def a_png_of_100_megapixels() -> bytes:
    """A few bytes that claim to be 10000 x 10000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def a_jpeg_of_thousands_of_scans() -> bytes:
    """Half a megabyte that would take a decoder 15 s: 40 megapixels, of which each scan says a little."""
    buffer = io.BytesIO()
    Image.new("L", (6324, 6324), 128).save(buffer, format="JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 6000 + data[-2:]


def a_png_of_many_chunks() -> bytes:
    """Four megabytes of chunks without content, which Pillow reads one by one."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, format="PNG")
    data = buffer.getvalue()
    return data[:33] + (struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))) * 350_000 + data[33:]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"photo": text(a_jpeg()[:3000])}, ["truncated"]),
        ({"photo": text(a_jpeg())}, ["no face"]),
        ({"photo": text(a_png_of_100_megapixels())}, ["100.0 megapixels", "at most 40"]),
        ({"photo": text(a_jpeg_of_thousands_of_scans())}, ["scans", "at most 64"]),
        ({"photo": text(b"")}, ["photo is empty"]),
        ({"photo": text(b"hello, world")}, ["not base64 of a JPEG"]),
        ({"photo": text("aGVsbG8=")}, ["not a JPEG"]),
        ({"photo": text(a_jpeg()), "face": text("prettiest")}, ["face='prettiest'", "largest, only"]),
        ({"face": text("only")}, ["photo", "missing"]),
    ],
    ids=["truncated", "noise", "bomb", "scans", "empty", "text", "base64-text", "face", "nothing"],
)
def test_bad_photographs_are_refused(wire: Any, inputs: dict[str, Any], words: list[str]) -> None:
    for message in (refusal(wire, "face_embedding", **inputs), refusal(wire, "id3pm_photo", seed=SEED, **inputs)):
        for word in words:
            assert word in message


def test_a_photograph_that_takes_long_leaves_signs_of_life(wire: Any) -> None:
    """The supervisor asks like this, and replaces a stage without them."""
    answer = wire.start("face_embedding", ["embedding"], photo=text(a_png_of_many_chunks()))
    ages = []
    while True:
        state = wire.control("face_embedding", "ping")
        ages.append(state["loop_age_ms"])
        if len(ages) > 10 and not state["in_flight"]:
            break
        time.sleep(0.05)
    with pytest.raises(InferenceServerException, match="no face"):
        answer()
    assert len(ages) > 12 and max(ages) < 1000, ages


def test_an_id_in_flight_cannot_be_used_twice(wire: Any) -> None:
    first = wire.start("denoiser_64", ["image_64"], id="twice", steps=int32(400), **GOOD)
    with pytest.raises(InferenceServerException, match="'twice' is in flight already"):
        wire.start("denoiser_64", ["image_64"], id="twice", **GOOD)()
    wire.control("denoiser_64", "cancel", "twice")
    with pytest.raises(InferenceServerException, match="cancelled"):
        first()


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/systemsharedmemory/region/x/register", "/v2/logging"])
def test_a_client_cannot_change_the_server(wire: Any, path: str) -> None:
    status, _ = wire.http(path, {})
    assert status == 403


def test_a_client_cannot_change_the_server_over_grpc(wire: Any) -> None:
    with pytest.raises(InferenceServerException, match="restricted"):
        tritonclient.grpc.InferenceServerClient(wire.server.grpc_url).update_log_settings({"log_verbose_level": 1})
