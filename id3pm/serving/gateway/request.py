"""What a request asks for, read from its body before Triton sees it; one without an id gets one."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.auth import MODELS, Caller
from id3pm.serving.gateway.origin import refuse_reserved
from id3pm.serving.gateway.tensor_checks import (
    BINARY_SIZE,
    check_inputs,
    check_outputs,
    check_values,
    leaves,
    no_classes,
    shown,
)
from id3pm.serving.launcher.preflight import FACE_MODEL, STAGE_MODELS
from id3pm.serving.protocol.limits import MAX_ID, MAX_PARTS
from id3pm.serving.protocol.status import RefusedError

# The models whose input `control` callers may use. The face stage has one for the supervisor alone. Elsewhere the word
# is an unknown input or a parameter, and the request is work.
CONTROLLED = frozenset(STAGE_MODELS.values())
READ_CONTROL = CONTROLLED | {FACE_MODEL}
# `drain` is the operator's, who stops the service with a signal.
OPEN_CONTROLS = ("ping", "describe", "progress", "watch", "cancel")


@dataclasses.dataclass(frozen=True)
class Asked:
    """The facts of one inference request.

    Attributes:
        model: A served model.
        id: The request's id; never empty where it is work.
        control: The operation of a control request, or `None` where the request is work.
    """

    model: str
    id: str
    control: str | None = None

    def check(self, caller: Caller) -> None:
        """Checks that `caller` may ask for this.

        Raises:
            RefusedError: The model is not served, or this is not open to the caller.
        """
        check_model(self.model)
        if self.control is None or self.model not in CONTROLLED:
            caller.require(self.model)
        if self.control is None:
            return
        if self.model not in CONTROLLED:
            raise RefusedError(
                "PERMISSION_DENIED",
                f"control: {self.model} takes none here; send it to {' or '.join(sorted(CONTROLLED))}",
            )
        if self.control not in OPEN_CONTROLS:
            raise RefusedError(
                "PERMISSION_DENIED", f"control {self.control[:64]!r}: open here are {', '.join(OPEN_CONTROLS)}"
            )


def check_model(model: str) -> None:
    """Refuses models that are not served here."""
    if model not in MODELS:
        raise RefusedError("NOT_FOUND", f"model {model[:64]!r} is not served; there are {', '.join(MODELS)}")


def read_json(model: str, body: bytes, header_length: str | None, *, generate: bool) -> tuple[Asked, bytes, int | None]:
    """The facts of an HTTP request for `infer` or `generate`.

    Args:
        model: The model in the path.
        body: The body: JSON, for `infer` perhaps with binary tensors behind it.
        header_length: The header `Inference-Header-Content-Length`: bytes of JSON before binary tensors.
        generate: Whether tensors are plain JSON keys.

    Returns:
        The facts, the body to send on, and its new header length where there was one.

    Raises:
        RefusedError: The body is not what the protocol says.
    """
    length = _header_length(header_length, len(body))
    document = parse_object(body if length is None else body[:length])
    binary = body[length:] if length else b""
    control = _generate_control(document) if generate else _infer_control(document, binary)
    if model not in READ_CONTROL:
        control = None
    sent = document.get("id", "")
    if sent == "" and control is None:
        new = uuid.uuid4().hex
        start = body.index(b"{") + 1
        insertion = f'"id":"{new}"'.encode() + (b"," if document else b"")
        body = body[:start] + insertion + body[start:]
        return Asked(model, new), body, None if length is None else length + len(insertion)
    return Asked(model, checked_id(sent), control), body, length


def read_message(data: bytes) -> tuple[Asked, bytes]:
    """The facts of a gRPC `ModelInferRequest`, and the message to send on.

    Raises:
        RefusedError: These bytes are no such message.
    """
    message = service_pb2.ModelInferRequest()
    try:
        message.ParseFromString(data)
    except Exception as error:  # DecodeError, which protobuf's implementations do not all define in one place
        raise RefusedError("INVALID_ARGUMENT", "the message is no inference.ModelInferRequest") from error
    for output in message.outputs:
        if "classification" in output.parameters:
            raise no_classes(output.parameters["classification"].int64_param)
    refuse_reserved(message.parameters)
    control = _message_control(message) if message.model_name in READ_CONTROL else None
    if message.id == "" and control is None:
        new = uuid.uuid4().hex
        field = b"\x1a" + bytes([len(new)]) + new.encode()  # number 3; a parser takes the last one
        return Asked(message.model_name, new), data + field
    return Asked(message.model_name, checked_id(message.id), control), data


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object without repeated keys, which two readers could understand differently.

    Raises:
        RefusedError: It is something else, or has too many parts.
    """
    parts = body.count(b",") + body.count(b"\\")
    if parts > MAX_PARTS:  # nobody else is served while JSON is read
        raise RefusedError(
            "INVALID_ARGUMENT",
            f"the JSON has {parts} commas and backslashes: at most {MAX_PARTS} are allowed; send tensors as binary",
        )
    try:
        document = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise RefusedError("INVALID_ARGUMENT", f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RefusedError("INVALID_ARGUMENT", "the body is JSON, but no object: it must be one")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RefusedError("INVALID_ARGUMENT", f"a JSON key is repeated, one of {', '.join(made)[:200]}")
    for name in made:
        _whole(name)
    return made


def _whole(name: Any) -> Any:
    """A name that Triton, which reads to the first NUL, reads like Python."""
    if isinstance(name, str) and "\0" in name:
        raise RefusedError("INVALID_ARGUMENT", f"the name {name[:64]!r} must not have a NUL in it")
    return name


def checked_id(sent: Any) -> str:
    """A request id as sent.

    Raises:
        RefusedError: It is no text, or too long.
    """
    if not isinstance(sent, str):
        raise RefusedError("INVALID_ARGUMENT", f"id={shown(sent)}: must be text")
    if len(sent) > MAX_ID:
        raise RefusedError("INVALID_ARGUMENT", f"id has {len(sent)} characters: at most {MAX_ID} are allowed")
    if not sent.isprintable():  # it stands in a header and in logs
        raise RefusedError("INVALID_ARGUMENT", f"id={ascii(sent)}: must be printable characters")
    return sent


def _header_length(header: str | None, size: int) -> int | None:
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) < 12) or not 0 < int(header) <= size:
        raise RefusedError(
            "INVALID_ARGUMENT", f"Inference-Header-Content-Length={header[:64]!r}: must be 1 .. {size} (the body)"
        )
    return int(header)


def _generate_control(document: dict[str, Any]) -> str | None:
    """Of a `generate` request, whose values are checked. Triton takes what is in `parameters` for inputs, too."""
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RefusedError("INVALID_ARGUMENT", f"parameters={shown(parameters)}: must be an object")
    for values in (document, parameters):
        refuse_reserved(values)
        check_values(values)
    return _only([_first_text(values["control"]) for values in (document, parameters) if "control" in values])


def _infer_control(document: dict[str, Any], binary: bytes) -> str | None:
    """Of an `infer` request, whose tensors are checked."""
    check_outputs(document.get("outputs", []))
    if isinstance(document.get("parameters"), dict):
        refuse_reserved(document["parameters"])
    found = []
    offset = 0
    for tensor in check_inputs(document.get("inputs", [])):
        parameters = tensor.get("parameters")
        size = parameters.get(BINARY_SIZE) if isinstance(parameters, dict) else None
        if _whole(tensor.get("name")) == "control":
            data = binary[offset : offset + size] if isinstance(size, int) else None
            found.append(_first_text(tensor.get("data")) if data is None else _first_element(data))
        offset += size if isinstance(size, int) else 0
    return _only(found)


def _message_control(message: Any) -> str | None:
    found = []
    for index, tensor in enumerate(message.inputs):
        if _whole(tensor.name) == "control":
            raw, typed = message.raw_input_contents, tensor.contents.bytes_contents
            found.append(_first_element(raw[index]) if index < len(raw) else _text(typed[0]) if typed else "")
    return _only(found)


def _only(found: Sequence[str]) -> str | None:
    if len(found) > 1:
        raise RefusedError("INVALID_ARGUMENT", "the input control is sent twice")
    return found[0] if found else None


def _first_element(data: bytes) -> str:
    """The first string of a BYTES tensor: four bytes of length, then its text."""
    return _text(data[4 : 4 + int.from_bytes(data[:4], "little")])


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _first_text(data: Any) -> str:
    return str(next(leaves(data), ""))
