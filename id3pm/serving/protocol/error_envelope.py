"""Carries the code and fields of a stage's error through Triton, which has one status and one text for an error.

A request may carry a secret tag (`ERROR_TAG`). The gateway always sends one, in place of its caller's; the client sends
one for a plain `tritonserver`. A stage that got a tag writes `TAG{"code": ...} text`. The sender finds the tag, and
behind it the fields and the text, after whatever Triton put before them. Text that quotes a caller cannot be taken for
an envelope, because no caller of the gateway sees the gateway's tag. Without a tag the sender gets the text alone.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from id3pm.error_codes import ERROR_CODES
from id3pm.serving.protocol.status import cut

ERROR_TAG = "x-id3pm-error-tag"
"""Request parameter."""
MAX_TAG = 64
"""Characters of a tag; of a longer one the rest is left out."""
_DECODER = json.JSONDecoder()
# Triton has fewer statuses, under other names.
_TRITON = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
}
TRITON_CODES = ("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL")
"""Names of Triton's statuses that the stages use."""


class StageError(NamedTuple):
    """What a stage says instead of an answer."""

    code: str
    text: str
    retry_after_s: float | None = None


def triton_code(code: str) -> str:
    """The name of Triton's status for an error code."""
    return _TRITON.get(ERROR_CODES[code].grpc, "INTERNAL")


def write(tag: str, error: StageError) -> str:
    """The message to hand to Triton.

    Args:
        tag: The request's; empty where it has none.
        error: Its text is cut.
    """
    if not tag:
        return cut(error.text)
    fields: dict[str, str | float] = {"code": error.code}
    if error.retry_after_s is not None:
        fields["retry_after_s"] = error.retry_after_s
    return f"{tag}{json.dumps(fields)} {cut(error.text)}"


def read(tag: str, message: str) -> StageError | None:
    """What a stage said; `None` where the message is not a stage's.

    Args:
        tag: That of the request.
        message: As it came from Triton.
    """
    _, found, rest = message.partition(tag)
    if not found:
        return None
    try:
        fields, end = _DECODER.raw_decode(rest)
        code, seconds = fields["code"], fields.get("retry_after_s")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    known = code if code in ERROR_CODES else "internal"  # a stage of another version may have others
    return StageError(known, rest[end + 1 :], None if seconds is None else float(seconds))
