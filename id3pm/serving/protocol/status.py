"""Refusals: what a caller is told instead of an answer, the same over HTTP and gRPC."""

from __future__ import annotations

import math
import re

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
_CODES = {status: code for code, status in STATUS.items()} | {
    TOO_MANY: "RESOURCE_EXHAUSTED",
    TOO_LATE: "DEADLINE_EXCEEDED",
}
_RETRY = re.compile(r"retry after (\d+(?:\.\d+)?) s")
# Absolute paths of two parts or more, but not what follows a host name or is the path of a request.
_PATH = re.compile(r"(?<![\w:/.])/(?!v2/)(?:[\w.+@-]+/)+[\w.+@-]*")
_TRACEBACK = re.compile(r"\s*\n+At:\s*\n.*", re.DOTALL)


class RefusedError(Exception):
    """A request that gets an error; the message names the value and the rule.

    Attributes:
        code: Name of the gRPC status, such as `UNAVAILABLE`.
        status: The HTTP status; that of the code in `STATUS`, unless another is given.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS.get(code, 500) if status is None else status


def code_of(status: int) -> str:
    """The gRPC status that says what an HTTP status says."""
    return _CODES.get(status, "INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL")


def retry_header(message: str) -> dict[str, str]:
    """The header `Retry-After` (whole seconds) of a message that says when to come back; else nothing."""
    match = _RETRY.search(message)
    return {"Retry-After": str(math.ceil(float(match[1])))} if match else {}


def without_paths(message: str) -> str:
    """A message of Triton's without tracebacks and without paths of this machine."""
    return _PATH.sub("(a file)", _TRACEBACK.sub("", message))
