"""Metrics of one stage in Triton's `/metrics`.

Triton's own compute statistics end when `execute` returns, which here is before the work begins; these are the true
ones. An update costs Triton 20 us, so events of the sampling loop are recorded and reported later.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Sequence

from id3pm.errors import (
    CancelledError,
    DeadlineError,
    FaceTooSmallError,
    Id3pmError,
    ImageError,
    InvalidInputError,
    NoFaceError,
    OverloadedError,
    SeveralFacesError,
)
from id3pm.sampling.request import Sample
from id3pm.sampling.row import Row
from id3pm.sampling.status import Status
from id3pm.serving.models.triton_types import Backend, BackendMetric, BackendMetricFamily
from id3pm.serving.protocol.error_envelope import TRITON_CODES

_STEP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_WAIT_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_IMAGE_BUCKETS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
_PHOTO_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_OCCUPANCY_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_OUTCOMES: dict[str, tuple[type[Id3pmError], ...]] = {
    "rejected": (OverloadedError,),
    "expired": (DeadlineError,),
    "cancelled": (CancelledError,),
    "invalid": (InvalidInputError,),
}
_REFUSALS: dict[str, type[InvalidInputError]] = {
    "image": ImageError,
    "no_face": NoFaceError,
    "face_too_small": FaceTooSmallError,
    "several_faces": SeveralFacesError,
}


def outcome_of(error: BaseException) -> str:
    """The outcome under which a request with this error is counted."""
    return next((name for name, kinds in _OUTCOMES.items() if isinstance(error, kinds)), "failed")


class _Families:
    """Makes the metrics of one model, all with the label `model`, and keeps references to them, which Triton needs.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        model: The model's name.
    """

    def __init__(self, pb: Backend, model: str) -> None:
        self._pb = pb
        self._model = model
        self._kept: list[BackendMetricFamily] = []  # Triton forgets a metric whose family is garbage-collected

    def gauge(self, name: str, description: str) -> BackendMetric:
        """A gauge."""
        return self._family("GAUGE", name, description).Metric(labels={"model": self._model})

    def counter(self, name: str, description: str) -> BackendMetric:
        """A counter."""
        return self._family("COUNTER", name, description).Metric(labels={"model": self._model})

    def counters(self, name: str, description: str, label: str, values: Sequence[str]) -> dict[str, BackendMetric]:
        """One for each value of a label."""
        made = self._family("COUNTER", name, description)
        return {value: made.Metric(labels={"model": self._model, label: value}) for value in values}

    def histogram(self, name: str, description: str, buckets: Sequence[float]) -> BackendMetric:
        """A histogram with these bounds."""
        return self._family("HISTOGRAM", name, description).Metric(labels={"model": self._model}, buckets=list(buckets))

    def requests(self) -> dict[str, BackendMetric]:
        """Counters by outcome: see `outcome_of`."""
        outcomes = ("done", "failed", *_OUTCOMES)
        return self.counters("requests_total", "Requests answered, by what became of them", "outcome", outcomes)

    def errors(self) -> dict[str, BackendMetric]:
        """Counters by Triton's error code."""
        return self.counters("errors_total", "Requests answered with an error", "code", TRITON_CODES)

    def _family(self, kind: str, name: str, description: str) -> BackendMetricFamily:
        family = self._pb.MetricFamily
        made = family(name=f"id3pm_{name}", description=description, kind=getattr(family, kind))
        self._kept.append(made)
        return made


class StageMetrics:
    """Counters, gauges and histograms of one sampling stage. Its methods may be called from any thread.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        model: The model's name, which becomes the label `model`.
    """

    def __init__(self, pb: Backend, model: str) -> None:
        self._families = made = _Families(pb, model)
        self._observations: collections.deque[tuple[BackendMetric, float]] = collections.deque()
        self._counts: collections.deque[tuple[BackendMetric, float]] = collections.deque()
        self._flushing = threading.Lock()
        self._active_rows = made.gauge("active_rows", "Images in the current step")
        self._waiting_rows = made.gauge("waiting_rows", "Images that wait for their first step")
        self._paused_rows = made.gauge("paused_rows", "Images that have begun and let others go first")
        self._backlog = made.gauge("backlog_seconds", "Work in flight, by the cost model")
        self._images = made.counter("images_total", "Images finished")
        self._steps = made.counter("steps_total", "Sampling steps of finished images")
        self._saved = made.counter(
            "steps_saved_total", "Sampling steps not made because a request was cancelled or too late"
        )
        self._engine_rows = made.counter("engine_rows_total", "Rows evaluated; guided steps take two")
        self._occupancy = made.histogram(
            "batch_occupancy", "Rows of a U-Net call, of those it can take", _OCCUPANCY_BUCKETS
        )
        self._step = made.histogram("step_seconds", "Duration of one batched U-Net call", _STEP_BUCKETS_S)
        self._queue = made.histogram("queue_seconds", "From the arrival of an image to its first step", _WAIT_BUCKETS_S)
        self._preview = made.histogram(
            "first_preview_seconds", "From the arrival of an image to the end of its first step", _WAIT_BUCKETS_S
        )
        self._image = made.histogram("image_seconds", "From the arrival of an image to its last step", _IMAGE_BUCKETS_S)
        self._requests = made.requests()
        self._joined = made.counters(
            "joined_total", "Requests that got the answer of one with their id", "to", ("in_flight", "recent")
        )
        self._errors = made.errors()

    def evaluated(self, rows: int, most: int, seconds: float) -> None:
        """The U-Net has evaluated the rows of a step, of at most `most` in a call."""
        self._observe(self._step, seconds)
        self._observe(self._occupancy, rows / most)
        self._count(self._engine_rows, rows)

    def first_step(self, row: Row) -> None:
        """A row has just made its first step."""
        assert row.started is not None
        self._observe(self._queue, row.started - row.submitted)
        self._observe(self._preview, time.monotonic() - row.submitted)

    def row_ended(self, row: Row, outcome: Sample | Id3pmError) -> None:
        """A row has left."""
        if isinstance(outcome, Sample):
            self._count(self._images, 1)
            self._count(self._steps, outcome.steps)
            self._observe(self._image, outcome.waited_s + outcome.sampled_s)
        elif isinstance(outcome, (CancelledError, DeadlineError)):
            self._count(self._saved, len(row.plan) - row.step)

    def done(self) -> None:
        """A request gets its answer."""
        self._count(self._requests["done"], 1)

    def joined(self, to: str) -> None:
        """A request waits for the answer of another that is `in_flight`, or gets that of a `recent` one."""
        self._count(self._joined[to], 1)

    def error(self, error: BaseException, code: str) -> None:
        """A request gets an error of this Triton code; passed on at once, so that its receiver finds it counted."""
        self._count(self._requests[outcome_of(error)], 1)
        self._count(self._errors[code], 1)
        self.flush()

    def show(self, status: Status) -> None:
        """Sets the gauges."""
        self._active_rows.set(status.active)
        self._waiting_rows.set(status.waiting)
        self._paused_rows.set(status.paused)
        self._backlog.set(status.backlog_s)

    def flush(self) -> None:
        """Reports the recorded events to Triton."""
        with self._flushing:
            for _ in range(len(self._observations)):
                histogram, value = self._observations.popleft()
                histogram.observe(value)
            sums: dict[BackendMetric, float] = {}
            for _ in range(len(self._counts)):
                counter, value = self._counts.popleft()
                sums[counter] = sums.get(counter, 0) + value
            for counter, value in sums.items():
                counter.increment(value)

    def _observe(self, histogram: BackendMetric, value: float) -> None:
        self._observations.append((histogram, value))

    def _count(self, counter: BackendMetric, value: float) -> None:
        self._counts.append((counter, value))


class FaceMetrics:
    """The same for the face stage. An update takes 20 us, a photograph 20 ms, so updates are immediate.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        model: The model's name, which becomes the label `model`.
    """

    def __init__(self, pb: Backend, model: str) -> None:
        self._families = made = _Families(pb, model)
        self._lock = threading.Lock()  # one update at a time
        self._waiting = made.gauge("waiting_photos", "Photographs taken and not answered, with the one at work")
        self._photos = made.counter("photos_total", "Photographs whose ID vector was found")
        self._refused = made.counters(
            "photos_refused_total", "Photographs that were refused, by reason", "reason", tuple(_REFUSALS)
        )
        self._queue = made.histogram(
            "photo_queue_seconds", "From the arrival of a request to its first photograph's turn", _WAIT_BUCKETS_S
        )
        self._photo = made.histogram("photo_seconds", "Work on one photograph, refused ones too", _PHOTO_BUCKETS_S)
        self._requests = made.requests()
        self._errors = made.errors()

    def queued(self, seconds: float) -> None:
        """A request's turn has come."""
        with self._lock:
            self._queue.observe(seconds)

    def worked(self, seconds: float, error: BaseException | None = None) -> None:
        """The work on a photograph is over: its ID vector was found, or there was an error."""
        reason = next((name for name, kind in _REFUSALS.items() if isinstance(error, kind)), None)
        with self._lock:
            self._photo.observe(seconds)
            if error is None:
                self._photos.increment(1)
            elif reason is not None:
                self._refused[reason].increment(1)

    def waiting(self, photos: int) -> None:
        """Sets the gauge."""
        with self._lock:
            self._waiting.set(photos)

    def done(self) -> None:
        """A request gets its answer."""
        with self._lock:
            self._requests["done"].increment(1)

    def error(self, error: BaseException, code: str) -> None:
        """A request gets an error of this Triton code."""
        with self._lock:
            self._requests[outcome_of(error)].increment(1)
            self._errors[code].increment(1)
