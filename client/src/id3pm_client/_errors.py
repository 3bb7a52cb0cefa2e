"""Every exception that this package raises on purpose.

    ClientError
    ├── InvalidRequestError (ValueError)              an argument or a request breaks a rule; do not send it again
    ├── UnavailableError                              no answer for now; retries are used up
    │   ├── ConnectionFailedError (ConnectionError)   the server cannot be reached, or the connection broke
    │   │   └── WrongEndpointError                    what answers there does not speak gRPC, or TLS; not sent again
    │   └── OverloadedError                           the server takes no work: queue full, draining or stopping
    ├── DeadlineExceededError (TimeoutError)          the time limit passed
    ├── CancelledRequestError                         the request was cancelled
    │   └── ClosedClientError (RuntimeError)          the client was closed, before the call or under it
    ├── AccessDeniedError                             the server wants a header or a certificate that was not sent
    ├── NotServedError                                the server does not have the model
    ├── ReplayError                                   the server cannot make the image of a receipt again
    └── InternalServerError                           the server failed, or answered something unexpected

Which class it is, the server's error code says (`ClientError.code`); the text is for people and is not read.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from id3pm_client._contract import ERROR_CODES

Self = TypeVar("Self", bound="ClientError")


def shown(value: object, most: int = 80) -> str:
    """A value in a message: its `repr`, cut, and without an error of its own."""
    try:
        text = repr(value)
    except Exception:  # int has a limit, and objects of callers may do anything
        return f"({type(value).__name__} without a text)"
    return text if len(text) <= most else f"{text[:most]}..."


class ClientError(Exception):
    """Base of all exceptions of this package.

    Attributes:
        index: Position of the failed image in the arrays given to `generate`, or `None` for a single request.
        request_id: Id under which the server knows the request, or `None` if nothing was sent.
        code: The server's error code, such as `no_face` or `queue_full`; empty where the server did not say one.
        retry_after_s: Seconds after which the server asks to be tried again, or `None` where it does not say.
        note: What the client knows about the way to the server, for the message; or empty.
    """

    note: str = ""

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        request_id: str | None = None,
        code: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.index = index
        self.request_id = request_id
        self.code = code
        self.retry_after_s = retry_after_s

    def of_request(self: Self, request_id: str, index: int | None, label: str) -> Self:
        """The same error, saying which request failed; `label` goes in front of the message unless empty."""
        named = self.reworded(f"{label}: {self}") if label else copy.copy(self)
        named.index, named.request_id = index, request_id
        return named

    def reworded(self: Self, message: str) -> Self:
        """The same error with another text."""
        other = copy.copy(self)
        other.args = (message,)
        return other


class InvalidRequestError(ClientError, ValueError):
    """An argument or a request breaks a rule; the message names the value and the rule."""


class UnavailableError(ClientError):
    """The server gave no answer for now; the retries are used up."""


class ConnectionFailedError(UnavailableError, ConnectionError):
    """The server cannot be reached, or the connection broke."""


class WrongEndpointError(ConnectionFailedError):
    """What answers at this address does not speak gRPC, or not the TLS that was asked for."""


class OverloadedError(UnavailableError):
    """The server takes no new work: its queue is full, or it is draining or stopping."""


class DeadlineExceededError(ClientError, TimeoutError):
    """The time limit passed before the answer came."""


class CancelledRequestError(ClientError):
    """The request was cancelled: on the server, or by closing the client."""


class ClosedClientError(CancelledRequestError, RuntimeError):
    """This client was closed, before the call or under it."""


class AccessDeniedError(ClientError):
    """The server wants a header or a certificate that was not sent, or does not take this from this caller."""


class NotServedError(ClientError):
    """The server does not have the model."""


class ReplayError(ClientError):
    """The server cannot make the image of a receipt again, or what it made is another image.

    Attributes:
        differences: What differs: name of the receipt's field, such as `stages.base.engine_sha256`, to (value in the
            receipt, value found).
    """

    def __init__(
        self,
        message: str,
        *,
        differences: Mapping[str, tuple[Any, Any]] | None = None,
        index: int | None = None,
        request_id: str | None = None,
        code: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, index=index, request_id=request_id, code=code, retry_after_s=retry_after_s)
        self.differences = dict(differences or {})


class InternalServerError(ClientError):
    """The server failed, or answered something that does not fit the contract."""


_BY_NAME = {
    kind.__name__: kind
    for kind in (
        InvalidRequestError,
        OverloadedError,
        DeadlineExceededError,
        CancelledRequestError,
        AccessDeniedError,
        NotServedError,
        InternalServerError,
    )
}
BY_CODE: Mapping[str, type[ClientError]] = MappingProxyType(
    {code: _BY_NAME[name] for code, name in ERROR_CODES.items()}
)
"""The exception for each of the server's error codes."""
CODE, RETRY_AFTER_S = "id3pm-code", "id3pm-retry-after-s"
"""Names of an error's fields in gRPC's trailing metadata."""
ERROR_TAG = "x-id3pm-error-tag"
"""Request parameter, a secret: a Triton without a gateway has no metadata, and its stages write the secret and the
fields, as JSON, before the text. Only client and stage know the secret, so no other text is taken for fields."""
_BY_STATUS: Mapping[str, type[ClientError]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidRequestError,
        "RESOURCE_EXHAUSTED": InvalidRequestError,  # one message that is too large
        "UNAVAILABLE": OverloadedError,
        "DEADLINE_EXCEEDED": DeadlineExceededError,
        "CANCELLED": CancelledRequestError,
        "UNAUTHENTICATED": AccessDeniedError,
        "PERMISSION_DENIED": AccessDeniedError,
        "NOT_FOUND": NotServedError,
        "UNIMPLEMENTED": NotServedError,
    }
)
# A status without a code is gRPC's own, or comes from a server without a gateway. gRPC has no code for these causes:
# its own words tell them apart, in lower case. The server's text is not compared where it has a code.
_WRONG_ENDPOINT = (
    "http1.x server",
    "expected settings frame",
    "wrong_version_number",
    "certificate_verify_failed",
)
_CONNECTION = (
    "failed to connect",
    "errors resolving",
    "dns resolution",
    "connection reset",
    "connection refused",
    "connection timed out",
    "socket closed",
    "cancelling all calls",
    "stream removed",
    "recvmsg",
    "sendmsg",
    "broken pipe",
    "keepalive",
    "goaway",
    "tsi",
    "handshake",
    "ssl_",
)
# A connection that breaks in the middle of a call has other statuses too.
_LOST = "stub process '"  # a plain Triton says so of a model that died
_BROKEN = ("stream removed", "rst_stream", "socket closed", "connection reset", "goaway")
_MOST_READ = 4096
_RESTRICTED = "This protocol is restricted"  # a plain Triton answers UNAVAILABLE where a header is missing


def error_from_status(
    status: str, message: str, metadata: Iterable[tuple[str, Any]] = (), tag: str = ""
) -> ClientError:
    """The typed error of a gRPC status.

    Args:
        status: Name of the gRPC status code, such as `UNAVAILABLE`.
        message: The status's message as it came.
        metadata: The trailing metadata that came with it.
        tag: What was sent as `ERROR_TAG`; empty where nothing was.
    """
    fields = {name: value for name, value in metadata if name in (CODE, RETRY_AFTER_S)}
    if tag and CODE not in fields and tag in message:
        fields, message = _from_stage(message.partition(tag)[2])
    code = str(fields.get(CODE, ""))
    text = message.strip() or f"the server answered {status} without a message"
    kind = BY_CODE.get(code) or (_BY_STATUS.get(status, InternalServerError) if code else _without_code(status, text))
    return kind(text, code=code, retry_after_s=_seconds(fields.get(RETRY_AFTER_S)))


def _from_stage(message: str) -> tuple[dict[str, Any], str]:
    """Fields and text of a stage's error."""
    try:
        fields, end = json.JSONDecoder().raw_decode(message)
        return {CODE: fields["code"], RETRY_AFTER_S: fields.get("retry_after_s")}, message[end:]
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}, message


def _seconds(value: object) -> float | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < math.inf else None


def _without_code(status: str, text: str) -> type[ClientError]:
    lower = text[:_MOST_READ].lower()
    if status == "UNAVAILABLE":
        if text.startswith(_RESTRICTED):
            return AccessDeniedError
        if any(words in lower for words in _WRONG_ENDPOINT):
            return WrongEndpointError
        if any(words in lower for words in _CONNECTION):
            return ConnectionFailedError
    if status in ("CANCELLED", "INTERNAL", "UNKNOWN") and any(words in lower for words in _BROKEN):
        return ConnectionFailedError
    if status == "INTERNAL" and _LOST in lower:
        return OverloadedError
    return _BY_STATUS.get(status, InternalServerError)
