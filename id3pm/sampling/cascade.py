"""64 px, then super-resolution: two step schedulers chained exactly as the served ensemble chains its two models."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from id3pm.config import SamplingOptions
from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.formats.images import to_chw
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.scheduler import StepScheduler


@dataclasses.dataclass(frozen=True, eq=False)
class CascadeImages:
    """The images of both stages for one request: uint8 [64, 64, 3] and uint8 [256, 256, 3]."""

    image_64: NDArray[np.uint8]
    image: NDArray[np.uint8]


OnImages = Callable[[CascadeImages | Id3pmError], None]


@dataclasses.dataclass(eq=False)
class _CascadeRequest:
    request: SampleRequest
    sr_options: SamplingOptions
    on_done: OnImages
    cancelled: bool = False


class Cascade:
    """Sends every result of the first scheduler, rounded to uint8 as it is on the wire, through the second."""

    def __init__(self, base: StepScheduler, sr: StepScheduler) -> None:
        self.base = base
        self.sr = sr
        self._flights: dict[str, _CascadeRequest] = {}
        self._lock = threading.Lock()

    def submit(self, request: SampleRequest, sr_options: SamplingOptions, on_done: OnImages) -> None:
        """Queues a request; see `StepScheduler.submit`.

        Args:
            request: For the 64 px stage. Seed, id, deadline and priority hold for both stages.
            sr_options: For super-resolution.
            on_done: Called exactly once, with both images or the error that ended the request.

        Raises:
            InvalidInputError: The request breaks a rule, or its id is in flight already.
            OverloadedError: Too many requests wait.
            DrainingError: No new work is taken.
        """
        entry = _CascadeRequest(request, sr_options, on_done)
        with self._lock:
            if request.id in self._flights:
                raise InvalidInputError(f"request id {request.id!r} is in flight already; choose unique ids")
            self._flights[request.id] = entry
        try:
            self.base.submit(request, lambda outcome: self._upsample(entry, outcome))
        except Id3pmError:
            with self._lock:
                del self._flights[request.id]
            raise

    def cancel(self, request_id: str) -> bool:
        """Ends a request with `CancelledError` in whichever stage it is; false where none of this id is in flight."""
        with self._lock:
            entry = self._flights.get(request_id)
        if entry is None:
            return False
        entry.cancelled = True  # noticed by _upsample where the request is just between the stages
        if not self.base.cancel(request_id):
            self.sr.cancel(request_id)
        return True

    def _upsample(self, entry: _CascadeRequest, outcome: Sample | Id3pmError) -> None:
        if isinstance(outcome, Id3pmError):
            self._finish(entry, outcome)
            return
        image_64 = outcome.image
        request = dataclasses.replace(
            entry.request,
            options=entry.sr_options,
            identity=None,
            attributes=None,
            low_res=to_chw(image_64),
        )
        try:
            self.sr.submit(request, lambda sr_outcome: self._finish(entry, sr_outcome, image_64))
        except Id3pmError as error:
            self._finish(entry, error)
        if entry.cancelled:
            self.sr.cancel(request.id)

    def _finish(
        self, entry: _CascadeRequest, outcome: Sample | Id3pmError, image_64: NDArray[np.uint8] | None = None
    ) -> None:
        with self._lock:
            del self._flights[entry.request.id]
        if isinstance(outcome, Id3pmError):
            entry.on_done(outcome)
        else:
            assert image_64 is not None
            entry.on_done(CascadeImages(image_64, outcome.image))
