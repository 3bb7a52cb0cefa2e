"""Progress of the requests of a call: polling, and the text of a progress bar. No I/O: both clients share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from id3pm_client import _contract as contract
from id3pm_client._answers import control_answer
from id3pm_client._bar import Bar
from id3pm_client._calls import control_call
from id3pm_client._errors import ClientError, ConnectionFailedError
from id3pm_client._request import Call, ClientRequest
from id3pm_client._server_pool import Server
from id3pm_client._types import Tensors

TransportT = TypeVar("TransportT")
EVERY_S: Final = 0.25
POLL_TIMEOUT_S: Final = 1.0
_NOTE_AFTER_S = 1.0


class Steps(Generic[TransportT]):
    """Follows the first request of a call that has no answer yet.

    Args:
        requests: The requests; empty where there is nothing to ask, and only what is waited for is shown.
        urls: The servers, for the message.
        bar: The progress bar.
    """

    def __init__(self, requests: Sequence[ClientRequest[TransportT]], urls: Sequence[str], bar: Bar) -> None:
        self._requests = requests
        self._urls = urls
        self._bar = bar
        self._position = 0
        self._ended = False

    def end(self) -> None:
        """Nothing more is to be shown."""
        self._ended = True

    def polls(self) -> list[tuple[Server[TransportT], Call]]:
        """How many steps the stages have made for that request; empty where none is on its way."""
        for position, request in enumerate(self._requests):
            if request.open_at and request.server is not None:
                self._position = position
                watch = ("watch", request.request_id, "-1", "0")  # answered at once, without a preview
                return [(request.server, control_call(stage, *watch)) for stage in contract.STAGES]
        return []

    def read(self, outcomes: Sequence[Tensors | BaseException], waiting: ClientError | None, answered: bool) -> None:
        """Shows the progress in the answers.

        Args:
            outcomes: The answers to `polls`.
            waiting: What the latest attempt of a request failed with, if another one follows.
            answered: Whether any server has ever answered this client.
        """
        if self._ended or (self._requests and not self._requests[self._position].open_at):
            return  # meanwhile the request was answered
        for stage, outcome in zip(contract.STAGES, outcomes, strict=False):
            if isinstance(outcome, BaseException):
                continue
            try:
                row = control_answer(outcome).get("rows", [{}])[0]
                step, steps = int(row["step"]), int(row["steps"])
            except (ClientError, KeyError, IndexError, TypeError, ValueError):
                continue
            if len(self._requests) == 1:
                self._bar.update(step, steps, f"steps of {stage}")
            else:
                self._bar.note(f"image {self._position} at step {step}/{steps} of {stage}")
            return
        if self._bar.age_s < _NOTE_AFTER_S:
            return
        if waiting is not None:
            self._bar.note(f"waiting for {', '.join(self._urls)}: {brief(waiting)}")
        elif not answered and not any(_is_answer(each) for each in outcomes):
            self._bar.note(f"waiting for {', '.join(self._urls)}")


def _is_answer(outcome: Tensors | BaseException) -> bool:
    return not isinstance(outcome, BaseException)


def brief(error: ClientError) -> str:
    """The end of a message of gRPC, which says why; other messages whole."""
    text = str(error)
    return text.rpartition(": ")[2] if isinstance(error, ConnectionFailedError) and not error.note else text
