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

Messages of the server are passed on without Triton's own prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

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
        note: What the client knows about the way to the server, for the message; or empty.
    """

    note: str = ""

    def __init__(self, message: str, *, index: int | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.request_id = request_id

    def of_request(self: Self, request_id: str, index: int | None, label: str) -> Self:
        """The same error, saying which request failed; `label` goes in front of the message unless empty."""
        message = f"{label}: {self}" if label else str(self)
        return type(self)(message, index=index, request_id=request_id)


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

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the server asks to be tried again, or `None` where it does not say."""
        found = _RETRY_AFTER.search(str(self))
        return None if found is None else float(found[1])


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
    ) -> None:
        super().__init__(message, index=index, request_id=request_id)
        self.differences = dict(differences or {})


class InternalServerError(ClientError):
    """The server failed, or answered something that does not fit the contract."""


_BY_STATUS: Mapping[str, type[ClientError]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidRequestError,
        "UNAVAILABLE": OverloadedError,
        "DEADLINE_EXCEEDED": DeadlineExceededError,
        "CANCELLED": CancelledRequestError,
        "UNAUTHENTICATED": AccessDeniedError,
        "PERMISSION_DENIED": AccessDeniedError,
        "NOT_FOUND": NotServedError,
        "UNIMPLEMENTED": NotServedError,
    }
)
# gRPC gives its own failures and the server's refusals the same status UNAVAILABLE; only the text tells them apart.
_CONNECTION = re.compile(
    "failed to connect|errors resolving|dns resolution|connection re(set|fused)|connection timed out|socket closed|"
    "cancelling all calls|stream removed|recvmsg|sendmsg|broken pipe|keepalive|goaway|tsi|handshake|ssl_",
    re.IGNORECASE,
)
# An HTTP/1 server at the other end; one without TLS where TLS is wanted; a certificate that is not trusted.
_WRONG_ENDPOINT = re.compile("http1[.]x server|Expected SETTINGS frame|WRONG_VERSION_NUMBER|CERTIFICATE_VERIFY_FAILED")
# A connection that breaks in the middle of a call has other statuses too.
_BROKEN = re.compile("stream removed|rst_stream|socket closed|connection reset|goaway", re.IGNORECASE)
_CLOSED = "Channel closed!"  # gRPC's own words for the calls that were under way when the channel was closed
_RESTRICTED = "This protocol is restricted"  # Triton answers UNAVAILABLE where a header is missing
# What the stages and Triton say when they end a request that is as good as before; sent again, it may succeed.
_STOPPED = re.compile(r"server (shut|is shutting) down|Stub process '[^']*' is not healthy", re.IGNORECASE)
# Triton has no status for it: the stages answer UNAVAILABLE, which `id3pm serve` makes DEADLINE_EXCEEDED.
LATE = ("the deadline passed", "the deadline cannot be met")
_RETRY_AFTER = re.compile(r"retry after (\d+(?:\.\d+)?) s")
_NOISE = re.compile(r"^(in ensemble '[^']*', |\[request id: [^\]]*\] )+")


def error_from_status(status: str, message: str) -> ClientError:
    """The typed error of a gRPC status.

    Args:
        status: Name of the gRPC status code, such as `UNAVAILABLE`.
        message: The status's message as it came.
    """
    text = _NOISE.sub("", message or "").strip() or f"the server answered {status} without a message"
    return _class_of(status, text)(text)


def _class_of(status: str, text: str) -> type[ClientError]:
    if status == "UNAVAILABLE":
        if text.startswith(_RESTRICTED):
            return AccessDeniedError
        if text.startswith(LATE):
            return DeadlineExceededError
        if _WRONG_ENDPOINT.search(text):
            return WrongEndpointError
        if _CONNECTION.search(text):
            return ConnectionFailedError
    if status == "RESOURCE_EXHAUSTED":  # too much at once, or one message that is too large
        return OverloadedError if _RETRY_AFTER.search(text) else InvalidRequestError
    if status == "CANCELLED" and text == _CLOSED:
        return ClosedClientError
    if status in ("CANCELLED", "INTERNAL", "UNKNOWN"):
        if _BROKEN.search(text):
            return ConnectionFailedError
        if _STOPPED.search(text):
            return OverloadedError
    return _BY_STATUS.get(status, InternalServerError)
