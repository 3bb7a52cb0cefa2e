"""Errors as messages for users who do not program: what happened, and what to do now."""

from __future__ import annotations

import dataclasses
import logging
import math

from id3pm.errors import ImageError
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


# The server names what is wrong with a photograph in words only: see id3pm/face/stage.py, id3pm/formats/images.py.
_PHOTO: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("no face was found",),
        "There seems to be no face in this picture.",
        "Please try one in which the face looks towards the camera and is well lit.",
    ),
    (("faces were found",), "This picture shows several faces.", "Please crop it so that only one of them is left."),
    (("px: at least",), "The face in this picture is too small.", "Please try one taken from closer by."),
    (
        ("megapixels", "mib", "message larger", "too large"),
        "This picture is too large.",
        "Please send one of at most 32 MiB and 40 megapixels; any photo program can make it smaller.",
    ),
    (
        ("not a jpeg, png or webp", "convert it to jpeg, png or webp", "is empty"),
        "This file is not a picture that can be read here.",
        "Please choose a JPEG, PNG or WebP file.",
    ),
    (
        ("truncated or damaged", "header is damaged"),
        "This picture is damaged.",
        "Please save it again, or try another one.",
    ),
)


def kindly(error: Exception) -> Notice:
    """The notice for an error; an unexpected one goes to the log with its traceback."""
    if isinstance(error, PageError):
        return error.notice
    detail = str(error)
    match error:
        case OverloadedError():
            return Notice("The service is busy.", f"Please try again {_wait(error.retry_after_s)}.", detail)
        case ConnectionFailedError():
            return Notice(
                "The service cannot be reached at the moment.",
                "Please try again in a minute. If it stays away, tell whoever runs it: it may not have been started.",
                detail,
            )
        case AccessDeniedError():
            return Notice(
                "The service does not let this page in.",
                "Whoever started the page has to give it a token that the service knows (--token-file), and that may "
                "send both photographs and ID vectors.",
                detail,
            )
        case NotServedError():
            return Notice(
                "The service at this address is not the one that makes faces.",
                "Whoever started the page has to give it the address of one (--server).",
                detail,
            )
        case DeadlineExceededError():
            return Notice(
                "This took longer than allowed.",
                "Please try fewer steps, or try again when there is less to do.",
                detail,
            )
        case CancelledRequestError():
            return Notice("The work was stopped.", "Press the button again whenever you like.", detail, kind="note")
        case ReplayError():
            return Notice(
                "This picture cannot be made again exactly.",
                "What made it has changed since: see the differences below.",
                detail,
            )
        case InvalidRequestError() | ImageError():
            return _of_photo(detail) or Notice("The service cannot do this.", f"It says: {detail}")
        case ClientError():
            return _of_photo(detail) or Notice(
                "The service failed over this request.",
                "Please try again. If it happens again, tell whoever runs it.",
                detail,
            )
    logger.error("unforeseen", exc_info=error)
    return Notice("Something went wrong in this page.", "Please try again. If it happens again, tell whoever runs it.")


def _of_photo(detail: str) -> Notice | None:
    lower = detail.lower()
    for phrases, title, advice in _PHOTO:
        if any(phrase in lower for phrase in phrases):
            return Notice(title, advice, detail)
    return None


def _wait(retry_after_s: float | None) -> str:
    if retry_after_s is None:
        return "in a minute"
    seconds = max(1, math.ceil(retry_after_s))
    return f"in {seconds} second{'s' if seconds > 1 else ''}"
