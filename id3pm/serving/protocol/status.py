"""Refusals: status and message of an error, the same over HTTP and gRPC."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from id3pm.error_codes import ERROR_CODES, ErrorCode
from id3pm.serving.protocol.limits import MAX_MESSAGE

_CUT = " ... (cut)"
# Of several codes with one status the general one, which is the first but for these.
_OF_HTTP = {row.http: row.code for row in reversed(list(ERROR_CODES.values()))} | {503: "unavailable"}
_OF_GRPC = {row.grpc: row.code for row in reversed(list(ERROR_CODES.values()))} | {
    "RESOURCE_EXHAUSTED": "too_large",
    "UNAVAILABLE": "unavailable",
    "DEADLINE_EXCEEDED": "deadline_exceeded",
}


class RefusedError(Exception):
    """A request that gets an error; the message names the value and the rule.

    Attributes:
        code: A key of `id3pm.error_codes.ERROR_CODES`.
        status: The HTTP status; that of the code, unless another is given.
        retry_after_s: Seconds after which the request may be sent again, where that may help.

    Args:
        code: See there.
        message: Cut at `MAX_MESSAGE` characters.
        status: See there.
        retry_after_s: See there.
    """

    def __init__(
        self, code: str, message: str, status: int | None = None, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(cut(message))
        self.row: ErrorCode = ERROR_CODES[code]
        self.code = code
        self.status = self.row.http if status is None else status
        self.retry_after_s = retry_after_s

    @property
    def grpc(self) -> str:
        """Name of the gRPC status."""
        return self.row.grpc

    @property
    def fields(self) -> dict[str, Any]:
        """The error as data: `code` and, where it is known, `retry_after_s`."""
        return {"code": self.code, **({} if self.retry_after_s is None else {"retry_after_s": self.retry_after_s})}

    @property
    def document(self) -> dict[str, Any]:
        """The error as a JSON object: its text, its gRPC status and its fields."""
        return {"error": str(self), "status": self.grpc, **self.fields}

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the HTTP answer: `Retry-After` in whole seconds."""
        return {} if self.retry_after_s is None else {"Retry-After": str(math.ceil(self.retry_after_s))}


def code_of_http(status: int) -> str:
    """The error code that says what an HTTP status says."""
    return _OF_HTTP.get(status, "invalid_argument" if 400 <= status < 500 else "internal")


def code_of_grpc(name: str) -> str:
    """The error code that says what a gRPC status says."""
    return _OF_GRPC.get(name, "internal")


def internal(error: BaseException) -> RefusedError:
    """The refusal for an exception that is not expected; the server's log has it."""
    return RefusedError("internal", f"internal error ({type(error).__name__}); the server's log says more")


def cut(message: str) -> str:
    """A message of at most `MAX_MESSAGE` characters."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - len(_CUT)] + _CUT


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
