"""Streams one image: the stages one after the other, each followed step by step.

The stages get what the ensembles give them, so the image is the same, bit for bit.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from tritonclient.grpc import service_pb2

from id3pm.formats.images import encode_png
from id3pm.serving.gateway.origin import Origin, refuse_reserved
from id3pm.serving.gateway.request import checked_id
from id3pm.serving.gateway.tensor_checks import shown
from id3pm.serving.gateway.upstream import outputs, texts
from id3pm.serving.launcher.preflight import FACE_MODEL, STAGE_MODELS
from id3pm.serving.models.diffusion_stages import PNG_TEXT_KEY
from id3pm.serving.protocol.limits import MAX_TIMEOUT_US
from id3pm.serving.protocol.status import TOO_LATE, RefusedError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5  # between questions that bring nothing new
_GRACE_S = 0.5  # a stage has its own clock for the deadline, and its message says more
_INT64 = 2**63
_HUGE = 10**300  # whole numbers beyond it are no floats; the stage refuses infinity
Tell = Callable[[str, Mapping[str, Any]], None]
Tensor = tuple[str, str, Sequence[int], bytes]  # name, data type, shape, bytes


class Stages(Protocol):
    """What is needed of an `Upstream`."""

    async def infer(self, message: Any, timeout_s: float | None = None) -> Any:
        """Sends a `ModelInferRequest`."""

    async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
        """Sends a control request."""


class Wish(NamedTuple):
    """A checked body.

    Attributes:
        origin: Who asks.
        id: The request's id.
        source: `embedding` (numbers) or `photo` (base64) and `face`, by name.
        parameters: All other options, for the stages to check.
        priority: As the input of this name, or `None`.
        preview_every: Steps from one preview to the next; 0 is none.
        deadline: Monotonic time in seconds at which the whole, the photograph's analysis included, must be done, or
            `None`.
    """

    origin: Origin
    id: str
    source: Mapping[str, Any]
    parameters: Mapping[str, bool | int | float | str]
    priority: int | None
    preview_every: int
    deadline: float | None

    def left_s(self, model: str) -> float | None:
        """Seconds until the deadline.

        Raises:
            RefusedError: It has passed.
        """
        if self.deadline is None:
            return None
        left_s = self.deadline - time.monotonic()
        if left_s <= 0.0:
            raise RefusedError("DEADLINE_EXCEEDED", f"the deadline passed before {model} could begin", TOO_LATE)
        return left_s


def read_wish(origin: Origin, model: str, document: Mapping[str, Any], new_id: str) -> Wish:
    """Checks what the stages cannot check.

    Raises:
        RefusedError: A value has a type that no option has, or what the image is made from is missing.
    """
    rest = dict(document)
    refuse_reserved(rest)
    request_id = checked_id(rest.pop("id", "")) or new_id
    every = rest.pop("preview_every", 1)
    if isinstance(every, bool) or not isinstance(every, int) or not 0 <= every <= 1000:
        raise RefusedError("INVALID_ARGUMENT", f"preview_every={shown(every)}: must be a whole number, 0 .. 1000")
    priority = rest.pop("priority", None)
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) >= 2**31):
        raise RefusedError("INVALID_ARGUMENT", f"priority={shown(priority)}: must be a whole number, 0 .. 9")
    deadline = _deadline(rest.pop("timeout", 0))
    source = _vector(rest) if model == "id3pm" else _photo(rest)
    parameters = {name: _scalar(name, value) for name, value in rest.items()}
    return Wish(origin, request_id, source, parameters, priority, every, deadline)


async def tell_story(wish: Wish, stages: Stages, tell: Tell) -> None:
    """Runs the stages; `tell` gets the events `progress`, `image_64` and `image`.

    Raises:
        RefusedError: A stage answered with an error.
    """
    embedding = await _embedding(wish, stages)
    vector = ("embedding", "FP32", [1, len(embedding) // 4], embedding)
    message = _message(wish, STAGE_MODELS["base"], [vector], "image_64", "receipt_64")
    base = outputs(await _followed(wish, message, stages, tell))
    pixels = np.frombuffer(base["image_64"], dtype=np.uint8)
    side = math.isqrt(len(pixels) // 3)
    receipt = texts(base["receipt_64"])[0]
    picture = encode_png(pixels.reshape(side, side, 3), {PNG_TEXT_KEY: receipt}, generated=True)
    tell("image_64", {"png": base64.b64encode(picture).decode(), "receipt": json.loads(receipt)})

    image = ("image_64", "UINT8", [1, side, side, 3], base["image_64"])
    so_far = ("receipt_64", "BYTES", [1, 1], base["receipt_64"])
    message = _message(wish, STAGE_MODELS["sr"], [image, so_far], "png", "receipt")
    sr = outputs(await _followed(wish, message, stages, tell))
    tell("image", {"png": texts(sr["png"])[0], "receipt": json.loads(texts(sr["receipt"])[0])})


async def _embedding(wish: Wish, stages: Stages) -> bytes:
    """The ID vector as FP32."""
    if "embedding" in wish.source:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which the stage refuses
            return np.array(wish.source["embedding"], dtype="<f4").tobytes()
    message = service_pb2.ModelInferRequest(model_name=FACE_MODEL, id=wish.id)
    for name, value in wish.source.items():
        _add(message, name, "BYTES", [1, 1], _element(value))
    message.outputs.add(name="embedding")
    wish.origin.mark(message)
    return outputs(await _send(wish, message, stages))["embedding"]


def _message(wish: Wish, model: str, inputs: Sequence[Tensor], *wanted: str) -> Any:
    """The request to one stage. Options are parameters; `priority` is an input, for Triton keeps that parameter."""
    message = service_pb2.ModelInferRequest(model_name=model, id=wish.id)
    for tensor in inputs:
        _add(message, *tensor)
    if wish.priority is not None:
        _add(message, "priority", "INT32", [1, 1], wish.priority.to_bytes(4, "little", signed=True))
    for name, value in wish.parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    for name in wanted:
        message.outputs.add(name=name)
    wish.origin.mark(message)
    return message


async def _send(wish: Wish, message: Any, stages: Stages) -> Any:
    """Sends a request to a stage with what is left of the time limit, which counts once for all stages."""
    left_s = wish.left_s(message.model_name)
    if left_s is None:
        return await stages.infer(message)
    message.parameters["timeout"].int64_param = max(int(left_s * 1e6), 1)
    return await stages.infer(message, left_s + _GRACE_S)


def _add(message: Any, name: str, datatype: str, shape: Sequence[int], raw: bytes) -> None:
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(raw)


async def _followed(wish: Wish, message: Any, stages: Stages, tell: Tell) -> Any:
    """Runs one stage while its steps are told."""
    follower = asyncio.ensure_future(_follow(message.model_name, wish, stages, tell))
    try:
        return await _send(wish, message, stages)
    finally:
        follower.cancel()
        await asyncio.wait([follower], timeout=1.0)  # it is only cancelled
        if (
            follower.done()
            and not follower.cancelled()
            and not isinstance(error := follower.exception(), (RefusedError, type(None)))
        ):
            raise error  # a refusal of the follower alone costs its caller no more than the progress


async def _follow(model: str, wish: Wish, stages: Stages, tell: Tell) -> None:
    """Tells every step of a stage until the request is over; `watch` answers as soon as there is a new one.

    It answers at once where the request has not arrived, is sampled and about to be answered, or too many watch.
    """
    step, shown, found = -1, 0, False  # step 0 shows nothing new: noise, or the 64 px image
    every, pause_s = wish.preview_every, _FIRST_PAUSE_S
    while True:
        preview = every > 0 and step + 1 >= shown + every
        answer = await stages.control(model, "watch", wish.id, str(step), "1" if preview else "0", origin=wish.origin)
        if found and not answer["found"]:
            return
        found = answer["found"]
        row = answer["rows"][0] if found else {"done": True}
        if row["done"] or row["step"] <= step:
            await asyncio.sleep(pause_s)
            pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
            continue
        step, pause_s = row["step"], _FIRST_PAUSE_S
        told = {"stage": model, "step": step, "steps": row["steps"]}
        if (picture := row.get("preview_png")) is not None:
            shown = step
            told["preview_png"] = picture
        tell("progress", told)


def _vector(rest: dict[str, Any]) -> dict[str, Any]:
    numbers = rest.pop("embedding", None)
    if not isinstance(numbers, list) or not numbers or not all(_is_number(number) for number in numbers):
        raise RefusedError("INVALID_ARGUMENT", f"embedding={shown(numbers)}: must be a list of numbers")
    return {"embedding": [min(max(number, -_HUGE), _HUGE) for number in numbers]}


def _photo(rest: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = {name: rest.pop(name) for name in ("photo", "face") if name in rest}
    if "photo" not in source:
        raise RefusedError("INVALID_ARGUMENT", "photo is missing: send the base64 text of a JPEG, PNG or WebP file")
    for name, value in source.items():
        if not isinstance(value, str):
            raise RefusedError("INVALID_ARGUMENT", f"{name}={shown(value)}: must be text")
        _check_text(name, value)
    return source


def _scalar(name: str, value: Any) -> bool | int | float | str:
    """An option as a request parameter: a vector is its JSON text, and so is a number that has no place in 64 bits."""
    _check_text("an option's name", name)
    if isinstance(value, str):
        _check_text(name, value)
    if isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)
    if isinstance(value, list):
        return json.dumps(value)
    raise RefusedError("INVALID_ARGUMENT", f"{name[:64]}={shown(value)}: must be a number, text or a list")


def _check_text(name: str, value: str) -> None:
    """Refuses halves of characters, which JSON can write and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedError("INVALID_ARGUMENT", f"{name}={ascii(value[:64])}: the text is no Unicode") from None


def _deadline(timeout_us: Any) -> float | None:
    """The monotonic time at which a `timeout` of microseconds ends; 0 is none."""
    if isinstance(timeout_us, bool) or not isinstance(timeout_us, int) or not 0 <= timeout_us <= MAX_TIMEOUT_US:
        raise RefusedError(
            "INVALID_ARGUMENT",
            f"timeout={shown(timeout_us)}: must be a whole number of microseconds, at most {MAX_TIMEOUT_US}",
        )
    return time.monotonic() + timeout_us / 1e6 if timeout_us else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _element(text: str) -> bytes:
    """A string as the only element of a BYTES tensor."""
    data = text.encode()
    return len(data).to_bytes(4, "little") + data
