"""Inference requests, read and checked before Triton gets them; a request without an id gets one."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.auth import Caller
from id3pm.serving.gateway.grpc_types import InferRequest
from id3pm.serving.gateway.json_body import generate_message, infer_message, parse_object
from id3pm.serving.gateway.tensor_checks import check_message, check_model, invalid, shown
from id3pm.serving.protocol.limits import MAX_ID
from id3pm.serving.protocol.served_models import FACE_MODEL, STAGE_MODELS
from id3pm.serving.protocol.status import RefusedError

# The models whose input `control` callers may use. The face stage has one for the supervisor alone. Elsewhere the word
# is an unknown input, and the request is work.
CONTROLLED = frozenset(STAGE_MODELS.values())
READ_CONTROL = CONTROLLED | {FACE_MODEL}
# `drain` is for the operator only, who stops the service with a signal.
OPEN_CONTROLS = ("ping", "describe", "progress", "watch", "cancel")


@dataclasses.dataclass(frozen=True)
class Request:
    """An inference request that was read, and is to be checked.

    Attributes:
        message: `ModelInferRequest`, with an id where it is work.
        control: The operation of a control request, or `None` where the request is work.
        wanted: Options of the answer in the JSON of an HTTP `infer`; else empty.
    """

    message: InferRequest
    control: str | None = None
    wanted: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.message.model_name

    @property
    def id(self) -> str:
        """The request's id; never empty where it is work."""
        return self.message.id

    def check(self, caller: Caller) -> None:
        """Checks the caller's permission, and the whole message.

        Raises:
            RefusedError: The model is not served, this is not open to the caller, or see `check_message`.
        """
        check_model(self.model)
        if self.control is None or self.model not in CONTROLLED:
            caller.require(self.model)
        if self.control is not None:
            self._check_control(self.control)
        check_message(self.message)

    def _check_control(self, op: str) -> None:
        if self.model not in CONTROLLED:
            raise RefusedError(
                "permission_denied",
                f"control: {self.model} takes none here; send it to {' or '.join(sorted(CONTROLLED))}",
            )
        if op not in OPEN_CONTROLS:
            raise RefusedError("permission_denied", f"control {shown(op)}: open here are {', '.join(OPEN_CONTROLS)}")


def json_length(header: str | None, size: int) -> int:
    """Bytes of JSON in a body of `size` bytes, by the header `Inference-Header-Content-Length` where it was sent.

    Raises:
        RefusedError: The header is no such number.
    """
    if header is None:
        return size
    if not (header.isascii() and header.isdecimal() and len(header) < 12) or not 0 < int(header) <= size:
        raise invalid(f"Inference-Header-Content-Length={header[:64]!r}: must be 1 .. {size} (the body)")
    return int(header)


def read_json(model: str, version: str, body: bytes, length: int, *, generate: bool) -> Request:
    """An HTTP request for `infer` or `generate`.

    Args:
        model: The model in the path, a served one.
        version: The version in the path, or empty.
        body: The body: JSON, for `infer` perhaps with binary tensors behind it.
        length: Bytes of JSON, before binary tensors.
        generate: Whether tensors are plain JSON keys.

    Raises:
        RefusedError: The body breaks the protocol.
    """
    document = parse_object(body if length == len(body) else body[:length])
    binary = bytes(body[length:])
    if generate and binary:
        raise invalid(f"{len(binary)} bytes lie behind the JSON: generate takes no binary tensors, infer does")
    message = generate_message(model, document) if generate else infer_message(model, document, binary)
    message.model_version, message.id = version, checked_id(document.get("id", ""))
    wanted = {} if generate else {name: value for name, value in document.items() if name in ("parameters", "outputs")}
    return _request(message, wanted)


def read_message(data: bytes) -> Request:
    """A gRPC `ModelInferRequest`.

    Raises:
        RefusedError: These bytes are no such message, or its id is not valid.
    """
    message = parse_message(service_pb2.ModelInferRequest, data)
    checked_id(message.id)
    return _request(message, {})


def parse_message(kind: Any, data: bytes) -> Any:
    """A protocol-buffers message of this class.

    Raises:
        RefusedError: The bytes are not such a message.
    """
    try:
        return kind.FromString(data)
    except Exception as error:  # DecodeError, which protobuf's implementations do not all define in one place
        raise invalid(f"the message is no {kind.DESCRIPTOR.full_name}: must be one") from error


def checked_id(sent: object) -> str:
    """A request id as sent.

    Raises:
        RefusedError: It is no text, or too long.
    """
    if not isinstance(sent, str):
        raise invalid(f"id={shown(sent)}: must be text")
    if len(sent) > MAX_ID:
        raise invalid(f"id has {len(sent)} characters: at most {MAX_ID} are allowed")
    if not sent.isprintable():  # it is written to a header and to logs
        raise invalid(f"id={shown(sent)}: must be printable characters")
    return sent


def _request(message: InferRequest, wanted: dict[str, Any]) -> Request:
    control = _control(message) if message.model_name in READ_CONTROL else None
    if message.id == "" and control is None:
        message.id = uuid.uuid4().hex
    return Request(message, control, wanted)


def _control(message: InferRequest) -> str | None:
    """The operation of a control request; `None` where the message is work."""
    found = []
    for index, tensor in enumerate(message.inputs):
        if tensor.name == "control":
            raw, typed = message.raw_input_contents, tensor.contents.bytes_contents
            found.append(_first_element(raw[index]) if index < len(raw) else _text(typed[0]) if typed else "")
    if len(found) > 1:
        raise invalid("the input control is sent twice: send it once")
    return found[0] if found else None


def _first_element(data: bytes) -> str:
    """The first string of a BYTES tensor: four bytes of length, then its text."""
    return _text(data[4 : 4 + int.from_bytes(data[:4], "little")])


def _text(data: bytes) -> str:
    return data[:64].decode(errors="replace")
