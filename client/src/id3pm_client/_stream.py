"""Streaming of one image: events, requests of the two stages. No I/O, so both clients share it.

A stream calls both stages instead of the ensemble, so the 64 px image arrives before super-resolution begins. The bits
and the receipt are those of the ensemble. Control `watch`, a long poll, reports the progress of a stage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Generator
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from id3pm_client import _contract as contract
from id3pm_client._answers import control_answer, json_object, picture, preview
from id3pm_client._arguments import as_vectors, text_tensor
from id3pm_client._calls import control_call
from id3pm_client._errors import (
    CancelledRequestError,
    ClientError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    UnavailableError,
)
from id3pm_client._images import Embedding, GeneratedImage
from id3pm_client._request import Call, ClientRequest
from id3pm_client._transport import Outcome
from id3pm_client._types import Tensors

TransportT = TypeVar("TransportT")
# A watch is answered within 5 s, whatever happens.
WATCH_TIMEOUT_S = 15.0
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """A stage has made steps.

    Attributes:
        stage: `denoiser_64`, then `super_resolution`.
        step: Steps made so far; it grows, though not always by one.
        steps: Steps in all.
        preview: The predicted image of the stage (64 or 256 px), or `None`.
    """

    stage: str
    step: int
    steps: int
    preview: Image.Image | None


@dataclasses.dataclass(frozen=True, eq=False)
class Image64:
    """The 64 px stage is done.

    Attributes:
        image: 64 x 64 RGB.
        seconds: Time from sending the request.
    """

    image: Image.Image
    seconds: float


Event: TypeAlias = Progress | Image64 | GeneratedImage
Events: TypeAlias = Generator[Event, None, None]
AsyncEvents: TypeAlias = AsyncGenerator[Event, None]


class StageRequest(Generic[TransportT]):
    """One stage's part of a stream.

    Attributes:
        request: The request to the stage.
        waiting: Events to yield once the request is on its way.
        outcome: Of the current attempt, if it has ended.
        watch_at: When to ask for progress; infinite while a call is on its way, or none is left.
    """

    def __init__(self, request: ClientRequest[TransportT], preview_every: int) -> None:
        self.request = request
        self.waiting: list[Event] = []
        self.outcome: Outcome | None = None
        self.watch_at = 0.0
        self._preview_every = preview_every
        self._next_preview = preview_every
        self._step = -1
        self._found = False
        self._pause_s = _FIRST_PAUSE_S

    def begin(self) -> None:
        """A new attempt: the steps of an earlier one are not reported again."""
        self.outcome, self.watch_at = None, 0.0
        self._found = False
        self._pause_s = _FIRST_PAUSE_S

    @property
    def tensors(self) -> Tensors:
        """The stage's answer, once it has come."""
        assert not isinstance(self.outcome, (ClientError, type(None)))
        return self.outcome

    def watch_call(self) -> Call:
        """Asks for more steps than have been seen."""
        wanted = "1" if self._preview_every and self._step + 1 >= self._next_preview else "0"
        return control_call(self.request.call.model, "watch", self.request.request_id, str(self._step), wanted)

    def read(self, outcome: Tensors | ClientError) -> tuple[Progress | None, float | None]:
        """Reads the answer to a `watch`.

        Returns:
            Progress where there is any, and after how many seconds to ask again; `None`: there will be no more.

        Raises:
            ClientError: The server does not know how to answer.
        """
        if isinstance(outcome, (UnavailableError, DeadlineExceededError, CancelledRequestError)):
            return None, self._pause()  # if it is serious, the request itself will end with it
        if isinstance(outcome, ClientError):
            raise outcome
        status = control_answer(outcome)
        if not status.get("found"):
            return None, None if self._found else self._pause()  # it is over, or has not arrived
        self._found = True
        try:
            row = status["rows"][0]
            if row["done"]:
                return None, None
            step, steps, png = int(row["step"]), int(row["steps"]), row.get("preview_png")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InternalServerError(f"the server's progress lacks what it should tell: {error!r}") from None
        if step <= self._step:
            return None, self._pause()
        self._step, self._pause_s = step, _FIRST_PAUSE_S
        return Progress(self.request.call.model, step, steps, self._due_preview(step, png)), 0.0

    def _due_preview(self, step: int, png: object) -> Image.Image | None:
        if png is None or not self._preview_every or step < self._next_preview:
            return None
        self._next_preview = (step // self._preview_every + 1) * self._preview_every
        return preview(png)

    def _pause(self) -> float:
        pause_s = self._pause_s
        self._pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
        return pause_s


class Streaming(Generic[TransportT]):
    """One streamed image from its ID vector to its picture."""

    def __init__(self, request: ClientRequest[TransportT], seed: int, preview_every: int) -> None:
        self.stage_requests: list[StageRequest[TransportT]] = []
        self._request = request
        self._seed = seed
        self._preview_every = preview_every

    def set_embedding(self, embedding: object) -> None:
        """The ID vector to start from.

        Raises:
            InvalidRequestError: Not one vector.
        """
        vector = as_vectors("embedding", embedding)
        if vector.ndim != 1:
            raise InvalidRequestError(
                f"embedding has shape {vector.shape}: a stream makes one image; pass one vector [D]"
            )
        call = self._request.call
        model = {"id_vector_model": text_tensor(embedding.id_vector_model)} if isinstance(embedding, Embedding) else {}
        self._request.call = dataclasses.replace(call, inputs={"embedding": vector[None], **model, **call.inputs})

    def count_from(self, analysis: ClientRequest[TransportT]) -> None:
        """The photograph's analysis has had its share of the time limit."""
        self._request.count_from(analysis)

    def first(self) -> StageRequest[TransportT]:
        """From the ID vector to the 64 px image."""
        return self._stream_stage(self._request)

    def next(self, done: StageRequest[TransportT]) -> StageRequest[TransportT] | None:
        """What follows on a stage: from the 64 px stage's answer to the 256 px image, then nothing."""
        if done is not self.stage_requests[0]:
            return None
        tensors = done.tensors
        options: Tensors = {
            name: tensor
            for name, tensor in self._request.call.inputs.items()
            if name in contract.MODELS[contract.SUPER_RESOLUTION].inputs
        }
        image = Image64(picture(tensors, "image_64"), self._request.seconds)
        json_object(tensors, "receipt_64")  # it is passed on as it is
        made = {name: np.asarray(tensors[name]) for name in ("image_64", "receipt_64")}
        current = self._stream_stage(
            self._request.then(Call(contract.SUPER_RESOLUTION, {**options, **made}, ("image", "receipt")))
        )
        current.waiting.append(image)
        return current

    def image(self) -> GeneratedImage:
        """The finished image."""
        first, second = self.stage_requests
        return GeneratedImage(
            image=picture(second.tensors, "image"),
            image_64=picture(first.tensors, "image_64"),
            seed=self._seed,
            receipt=json_object(second.tensors, "receipt"),
            request_id=second.request.request_id,
            seconds=second.request.seconds,
        )

    @property
    def requests(self) -> list[ClientRequest[TransportT]]:
        """All requests so far."""
        return [current.request for current in self.stage_requests]

    def _stream_stage(self, request: ClientRequest[TransportT]) -> StageRequest[TransportT]:
        self.stage_requests.append(StageRequest(request, self._preview_every))
        return self.stage_requests[-1]
