"""Streams one image: requests the stages one after the other, and reports each step.

The stages get the same inputs as from the ensembles, so the image is the same, bit for bit.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2

from id3pm.formats.images import encode_png
from id3pm.serving.gateway.grpc_types import InferRequest, InferResponse
from id3pm.serving.gateway.json_body import add_input, generate_message
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.request import checked_id
from id3pm.serving.gateway.tensor_checks import check_message, invalid, shown
from id3pm.serving.gateway.upstream import Upstream, outputs, texts
from id3pm.serving.models.diffusion_stages import PNG_TEXT_KEY
from id3pm.serving.protocol.served_models import FACE_MODEL, SIGNATURES, STAGE_MODELS
from id3pm.serving.protocol.status import RefusedError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5  # between two `watch` requests without news
_GRACE_S = 0.5  # a stage has its own clock for the deadline, and its message says more
_TIMEOUT = "timeout"  # the request parameter, microseconds
_SOURCES = {
    "id3pm": ("embedding", "a list of numbers"),
    "id3pm_photo": ("photo", "the base64 text of a JPEG, PNG or WebP file"),
}
Emit = Callable[[str, Mapping[str, object]], None]
Tensor = tuple[str, str, Iterable[int], bytes]  # name, data type, shape, bytes


class StreamRequest(NamedTuple):
    """A checked body.

    Attributes:
        origin: Origin of the request.
        message: The request as the ensemble would get it.
        preview_every: Steps from one preview to the next; 0 is none.
        deadline: Monotonic time in seconds at which the whole, the photograph's analysis included, must be done, or
            `None`.
    """

    origin: Origin
    message: InferRequest
    preview_every: int
    deadline: float | None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.message.id

    def left_s(self, model: str) -> float | None:
        """Seconds until the deadline.

        Raises:
            RefusedError: It has passed.
        """
        if self.deadline is None:
            return None
        left_s = self.deadline - time.monotonic()
        if left_s <= 0.0:
            raise RefusedError("deadline_exceeded", f"the deadline passed before {model} could begin")
        return left_s


def read_stream_request(origin: Origin, model: str, document: Mapping[str, object], new_id: str) -> StreamRequest:
    """Checks a body as that of `generate` is checked.

    Args:
        origin: Origin of the request.
        model: `id3pm` or `id3pm_photo`.
        document: The body.
        new_id: The id for a request without one.

    Raises:
        RefusedError: A value has a type that no option has, or the photograph, ID vector or a required input is
            missing.
    """
    every = document.get("preview_every", 1)
    if isinstance(every, bool) or not isinstance(every, int) or not 0 <= every <= 1000:
        raise invalid(f"preview_every={shown(every)}: must be a whole number, 0 .. 1000")
    message = generate_message(model, {name: value for name, value in document.items() if name != "preview_every"})
    message.id = checked_id(document.get("id", "")) or new_id
    name, what = _SOURCES[model]
    if name not in (tensor.name for tensor in message.inputs):
        raise invalid(f"{name} is missing: send {what}")
    check_message(message)
    limit_us = message.parameters[_TIMEOUT].int64_param if _TIMEOUT in message.parameters else 0
    return StreamRequest(origin, message, every, time.monotonic() + limit_us / 1e6 if limit_us else None)


async def stream_image(stream: StreamRequest, upstream: Upstream, emit: Emit) -> None:
    """Runs the stages; `emit` gets the events `face` (of a photograph), `progress`, `image_64` and `image`.

    Raises:
        RefusedError: A stage answered with an error, or the request's time limit passed before one began.
    """
    embedding = [tensor for tensor in _inputs(stream.message) if tensor[0] == "embedding"]
    if not embedding:
        face = _message(stream, FACE_MODEL, [], "embedding", "faces", "turned")
        found = outputs(await _send(stream, face, upstream))
        embedding = [("embedding", "FP32", [1, len(found["embedding"]) // 4], found["embedding"])]
        emit = _after(emit, "face", {name: _whole_number(found[name]) for name in ("faces", "turned")})
    first = _message(stream, STAGE_MODELS["base"], embedding, "image_64", "receipt_64")
    base = outputs(await _run_stage(stream, first, upstream, emit))
    pixels = np.frombuffer(base["image_64"], dtype=np.uint8)
    side = math.isqrt(len(pixels) // 3)
    receipt = texts(base["receipt_64"])[0]
    picture = encode_png(pixels.reshape(side, side, 3), {PNG_TEXT_KEY: receipt}, generated=True)
    emit("image_64", {"png": base64.b64encode(picture).decode(), "receipt": json.loads(receipt)})

    image = ("image_64", "UINT8", [1, side, side, 3], base["image_64"])
    so_far = ("receipt_64", "BYTES", [1, 1], base["receipt_64"])
    second = _message(stream, STAGE_MODELS["sr"], [image, so_far], "png", "receipt")
    sr = outputs(await _run_stage(stream, second, upstream, emit))
    emit("image", {"png": texts(sr["png"])[0], "receipt": json.loads(texts(sr["receipt"])[0])})


def _after(emit: Emit, name: str, data: Mapping[str, object]) -> Emit:
    """Delays each event until the next one, so that an error in between is still a plain HTTP error."""
    waiting = [(name, data)]

    def after(name: str, data: Mapping[str, object]) -> None:
        while waiting:
            emit(*waiting.pop())
        emit(name, data)

    return after


def _whole_number(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _message(stream: StreamRequest, model: str, inputs: Iterable[Tensor], *wanted: str) -> InferRequest:
    """The request to one stage: these inputs, and those of the whole request that the stage takes."""
    message: InferRequest = service_pb2.ModelInferRequest(model_name=model, id=stream.id)
    given = {tensor[0]: tensor for tensor in inputs}
    passed_on = [
        tensor for tensor in _inputs(stream.message) if tensor[0] in SIGNATURES[model].inputs and tensor[0] not in given
    ]
    for tensor in (*given.values(), *passed_on):
        add_input(message, *tensor)
    for name, value in stream.message.parameters.items():
        if name != _TIMEOUT:
            message.parameters[name].CopyFrom(value)
    for name in wanted:
        message.outputs.add(name=name)
    stream.origin.mark(message)
    return message


async def _send(stream: StreamRequest, message: InferRequest, upstream: Upstream) -> InferResponse:
    """Sends a request to a stage with what is left of the time limit, which counts once for all stages."""
    left_s = stream.left_s(message.model_name)
    if left_s is None:
        return await upstream.infer(message)
    message.parameters[_TIMEOUT].int64_param = max(int(left_s * 1e6), 1)
    return await upstream.infer(message, left_s + _GRACE_S)


def _inputs(message: InferRequest) -> list[Tensor]:
    return [
        (tensor.name, tensor.datatype, tensor.shape, raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    ]


async def _run_stage(stream: StreamRequest, message: InferRequest, upstream: Upstream, emit: Emit) -> InferResponse:
    """Runs one stage while its steps are streamed."""
    follower = asyncio.ensure_future(_stream_steps(message.model_name, stream, upstream, emit))
    try:
        return await _send(stream, message, upstream)
    finally:
        follower.cancel()
        await asyncio.wait([follower], timeout=1.0)  # it is only cancelled
        if (
            follower.done()
            and not follower.cancelled()
            and not isinstance(error := follower.exception(), (RefusedError, type(None)))
        ):
            raise error  # if only `watch` is refused, the caller loses the progress, but not the image


async def _stream_steps(model: str, stream: StreamRequest, upstream: Upstream, emit: Emit) -> None:
    """Streams every step of a stage until the request is over; `watch` answers as soon as there is a new one.

    It answers at once where the request has not arrived, is sampled and about to be answered, or too many watch.
    """
    step, shown, found = -1, 0, False  # step 0 shows nothing new: noise, or the 64 px image
    every, pause_s = stream.preview_every, _FIRST_PAUSE_S
    while True:
        preview = every > 0 and step + 1 >= shown + every
        answer = await upstream.control(
            model, "watch", stream.id, str(step), "1" if preview else "0", origin=stream.origin
        )
        if found and not answer["found"]:
            return
        found = answer["found"]
        row = answer["rows"][0] if found else {"done": True}
        if row["done"] or row["step"] <= step:
            await asyncio.sleep(pause_s)
            pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
            continue
        step, pause_s = row["step"], _FIRST_PAUSE_S
        progress = {"stage": model, "step": step, "steps": row["steps"]}
        if (picture := row.get("preview_png")) is not None:
            shown = step
            progress["preview_png"] = picture
        emit("progress", progress)
