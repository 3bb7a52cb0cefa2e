"""Errors as messages for users who do not program: what happened, and what to do now."""

from __future__ import annotations

import dataclasses
import logging
import math

from id3pm.error_codes import ERROR_CODES
from id3pm.errors import Id3pmError
from id3pm_client import (
    AccessDeniedError,
    CancelledRequestError,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidRequestError,
    NotServedError,
    OverloadedError,
    ReplayError,
)

logger = logging.getLogger("id3pm_page")


@dataclasses.dataclass(frozen=True)
class Notice:
    """One message on the page.

    Attributes:
        title: What happened, in a sentence.
        advice: What to do about it.
        detail: The message of the server or of the client, for the operator; may be empty.
        kind: `problem`, or `note` where nothing is wrong.
    """

    title: str
    advice: str
    detail: str = ""
    kind: str = "problem"


class PageError(Exception):
    """An error of the page itself; it carries its notice."""

    def __init__(self, title: str, advice: str) -> None:
        super().__init__(f"{title} {advice}")
        self.notice = Notice(title, advice)


_UNREACHABLE = (
    "The service cannot be reached at the moment.",
    "Please try again in a minute. If it stays away, tell its operator: it may not have been started.",
)
_CHANGED = "This picture cannot be made again exactly.", "What made it has changed since: see the differences below."
# Errors of the client itself, which have no code of the server: each means what this code means.
_CODES: tuple[tuple[type[ClientError], str], ...] = (
    (OverloadedError, "unavailable"),
    (AccessDeniedError, "permission_denied"),
    (NotServedError, "not_found"),
    (DeadlineExceededError, "deadline_exceeded"),
    (CancelledRequestError, "cancelled"),
    (InvalidRequestError, "invalid_argument"),
    (ClientError, "internal"),
)


def notice_for(error: Exception) -> Notice:
    """The notice for an error; an unexpected one goes to the log with its traceback."""
    detail = str(error)
    match error:
        case PageError():
            return error.notice
        case ConnectionFailedError():
            return Notice(*_UNREACHABLE, detail)
        case ReplayError() if not error.code:
            return Notice(*_CHANGED, detail)
        case ClientError():
            code = error.code or next(code for kind, code in _CODES if isinstance(error, kind))
            return _of_code(code, detail, error.retry_after_s)
        case Id3pmError():
            return _of_code(error.code, detail, error.retry_after_s)
    logger.error("unexpected", exc_info=error)
    return Notice("Something went wrong in this page.", "Please try again. If it happens again, tell whoever runs it.")


def _of_code(code: str, detail: str, retry_after_s: float | None) -> Notice:
    row = ERROR_CODES.get(code, ERROR_CODES["internal"])
    advice = row.advice.format(wait=_wait(retry_after_s))
    return Notice(row.title, advice, detail, row.kind) if advice else Notice(row.title, f"It says: {detail}")


def _wait(retry_after_s: float | None) -> str:
    if retry_after_s is None:
        return "in a minute"
    seconds = max(1, math.ceil(retry_after_s))
    return f"in {seconds} second{'s' if seconds > 1 else ''}"
