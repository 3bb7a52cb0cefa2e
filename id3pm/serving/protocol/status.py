"""Refusals: what a caller is told instead of an answer, the same over HTTP and gRPC."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from id3pm.serving.protocol.limits import MAX_MESSAGE

STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 408,
    "RESOURCE_EXHAUSTED": 413,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}
# Two meanings that HTTP tells apart and gRPC does not: come back later, and the work took too long.
TOO_MANY, TOO_LATE = 429, 504
UNSUPPORTED_MEDIA = 415
_CUT = " ... (cut)"
_CODES = {status: code for code, status in STATUS.items()} | {
    TOO_MANY: "RESOURCE_EXHAUSTED",
    TOO_LATE: "DEADLINE_EXCEEDED",
}


class RefusedError(Exception):
    """A request that gets an error; the message names the value and the rule.

    Attributes:
        code: Name of the gRPC status, such as `UNAVAILABLE`.
        status: The HTTP status; that of the code in `STATUS`, unless another is given.
        retry_after_s: Seconds after which the request may be sent again, where that may help.

    Args:
        code: See there.
        message: What is longer than `MAX_MESSAGE` characters is cut.
        status: See there.
        retry_after_s: See there; the message says it, too.
    """

    def __init__(
        self, code: str, message: str, status: int | None = None, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(cut(message))
        self.code = code
        self.status = STATUS.get(code, 500) if status is None else status
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the HTTP answer: `Retry-After` in whole seconds."""
        return {} if self.retry_after_s is None else {"Retry-After": str(math.ceil(self.retry_after_s))}


def code_of(status: int) -> str:
    """The gRPC status that says what an HTTP status says."""
    return _CODES.get(status, "INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL")


def cut(message: str) -> str:
    """A message of at most `MAX_MESSAGE` characters."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - len(_CUT)] + _CUT


def seconds_at_end(message: str) -> float | None:
    """The seconds of a stage's message that ends in `retry after N s`, the form in which hints pass through Triton."""
    words = message[-64:].split(" ")
    number = words[-2] if words[-1] == "s" and words[-4:-2] == ["retry", "after"] else ""
    if not number.isascii() or not number.replace(".", "", 1).isdigit() or len(number) > 9:
        return None
    return float(number)


def without_paths(message: str) -> str:
    """A message of Triton's without tracebacks and without paths of this machine; takes time in proportion to it."""
    shown: list[str] = []
    runs = itertools.groupby(cut(message).partition("\nAt:")[0].rstrip(), key=_in_path)
    for is_run, characters in runs:
        text = "".join(characters)
        absolute = is_run and text.startswith("/") and text.count("/") > 1
        named = text.startswith("/v2/") or (shown and shown[-1].endswith(":") and text.startswith("//"))
        shown.append("(a file)" if absolute and not named else text)
    return "".join(shown)


def _in_path(character: str) -> bool:
    return character.isalnum() or character in "/_.+@-"
