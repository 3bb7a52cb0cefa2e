"""The table of error codes: for each its HTTP and gRPC status, the client's exception, and words for people.

A code travels beside the text of an error from the stages through the gateway to the client and the page. Programs read
the code, people the text. The client's table and that of docs/errors.md are written from this one (`make generated`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class ErrorCode:
    """One row of the table.

    Attributes:
        code: Stable identifier.
        http: HTTP status.
        grpc: Name of the gRPC status.
        exception: What the client raises.
        meaning: When it comes.
        title: For the page: what happened.
        advice: For the page: what to do. `{wait}` becomes `in 3 seconds`, or `in a minute` where no time is known.
        fields: What comes beside code and text.
        kind: For the page: `problem`, or `note` where nothing is wrong.
    """

    code: str
    http: int
    grpc: str
    exception: str
    meaning: str
    title: str
    advice: str
    fields: tuple[str, ...] = ()
    kind: str = "problem"

    @property
    def retryable(self) -> bool:
        """Whether the same request, sent again later, may succeed."""
        return self.exception == "OverloadedError"


INVALID, BUSY, DENIED = "InvalidRequestError", "OverloadedError", "AccessDeniedError"
_RETRY = ("retry_after_s",)
_REFUSED = "The service cannot do this.", ""
_FULL = "The service is busy.", "Please try again {wait}."
_CLOSED = (
    "The service does not let this page in.",
    "Give the page a token that the service knows (--token-file), and that may send both photographs and ID vectors.",
)
_WRONG = (
    "The service at this address is not the one that makes faces.",
    "Give the page the address of one that does (--server).",
)
_LATE = "This took longer than allowed.", "Please try fewer steps, or try again when there is less to do."
_FAILED = (
    "The service failed over this request.",
    "Please try again. If it happens again, tell the operator of the service.",
)
_TOO_LARGE = (
    "This picture is too large.",
    "Please send one of at most 32 MiB and 40 megapixels; any photo program can make it smaller.",
)
_DAMAGED = "This picture is damaged.", "Please save it again, or try another one."
_UNREADABLE = "This file is not a picture that can be read here.", "Please choose a JPEG, PNG or WebP file."
_FACELESS = (
    "There seems to be no face in this picture.",
    "Please try one in which the face looks towards the camera and is well lit.",
)

_ROWS = (
    ErrorCode("invalid_argument", 400, "INVALID_ARGUMENT", INVALID, "a value breaks a rule", *_REFUSED),
    ErrorCode("invalid_image", 400, "INVALID_ARGUMENT", INVALID, "a picture breaks another rule", *_UNREADABLE),
    ErrorCode("image_too_large", 400, "INVALID_ARGUMENT", INVALID, "too many bytes or pixels", *_TOO_LARGE),
    ErrorCode("unsupported_image", 400, "INVALID_ARGUMENT", INVALID, "not a JPEG, PNG or WebP file", *_UNREADABLE),
    ErrorCode("damaged_image", 400, "INVALID_ARGUMENT", INVALID, "a file that cannot be decoded", *_DAMAGED),
    ErrorCode("no_face", 400, "INVALID_ARGUMENT", INVALID, "no face is found in the photograph", *_FACELESS),
    ErrorCode(
        "face_too_small",
        400,
        "INVALID_ARGUMENT",
        INVALID,
        "the face has too few pixels",
        "The face in this picture is too small.",
        "Please try one taken from closer by.",
    ),
    ErrorCode(
        "several_faces",
        400,
        "INVALID_ARGUMENT",
        INVALID,
        "several faces are found, and `face` is `only`",
        "This picture shows several faces.",
        "Please crop it so that only one of them is left.",
    ),
    ErrorCode("unauthenticated", 401, "UNAUTHENTICATED", DENIED, "no token, or an unknown one", *_CLOSED),
    ErrorCode("permission_denied", 403, "PERMISSION_DENIED", DENIED, "closed to this caller, or to all", *_CLOSED),
    ErrorCode("not_found", 404, "NOT_FOUND", "NotServedError", "no such path, model or version", *_WRONG),
    ErrorCode("method_not_allowed", 405, "INVALID_ARGUMENT", INVALID, "an HTTP method that the path lacks", *_REFUSED),
    ErrorCode(
        "request_timeout",
        408,
        "DEADLINE_EXCEEDED",
        "DeadlineExceededError",
        "the request did not arrive, or its answer was not taken, in time",
        "The connection to the service is too slow.",
        "Please try again, or send a smaller picture.",
    ),
    ErrorCode("too_large", 413, "RESOURCE_EXHAUSTED", INVALID, "a body or message of too many bytes", *_TOO_LARGE),
    ErrorCode("unsupported_encoding", 415, "INVALID_ARGUMENT", INVALID, "an unknown `Content-Encoding`", *_REFUSED),
    ErrorCode(
        "too_many_requests", 429, "RESOURCE_EXHAUSTED", BUSY, "too much at once at the gateway", *_FULL, fields=_RETRY
    ),
    ErrorCode(
        "cancelled",
        499,
        "CANCELLED",
        "CancelledRequestError",
        "the request was cancelled",
        "The work was stopped.",
        "Press the button again whenever you like.",
        kind="note",
    ),
    ErrorCode("internal", 500, "INTERNAL", "InternalServerError", "the server failed", *_FAILED),
    ErrorCode("unimplemented", 501, "UNIMPLEMENTED", "NotServedError", "the server has no such operation", *_WRONG),
    ErrorCode("queue_full", 503, "UNAVAILABLE", BUSY, "the queue of a stage is full", *_FULL, fields=_RETRY),
    ErrorCode("draining", 503, "UNAVAILABLE", BUSY, "a stage takes no new work", *_FULL, fields=_RETRY),
    ErrorCode("stopped", 503, "UNAVAILABLE", BUSY, "the server shut down before the request was done", *_FULL),
    ErrorCode("unavailable", 503, "UNAVAILABLE", BUSY, "starting, restarting, or out of memory", *_FULL, fields=_RETRY),
    ErrorCode(
        "deadline_exceeded",
        504,
        "DEADLINE_EXCEEDED",
        "DeadlineExceededError",
        "the request's `timeout` passed, or is too short",
        *_LATE,
    ),
)

ERROR_CODES: Mapping[str, ErrorCode] = MappingProxyType({row.code: row for row in _ROWS})
"""The rows, by code."""
