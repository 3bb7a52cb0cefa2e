"""The face stage as a Triton model: photograph -> ID vector."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from id3pm.errors import CancelledError, DeadlineError, Id3pmError, InvalidInputError
from id3pm.face.choice import FacePolicy
from id3pm.face.stage import FaceResult, FaceStage
from id3pm.formats.photo_cost import decoding_s
from id3pm.sampling.admission import draining
from id3pm.serving.models.backend_model import BackendModel
from id3pm.serving.models.metrics import FaceMetrics
from id3pm.serving.models.model_args import threads
from id3pm.serving.models.photo_queue import PhotoQueue, PhotoRequest
from id3pm.serving.models.triton_backend import InferenceRequest, Reply
from id3pm.serving.models.triton_types import Backend
from id3pm.serving.models.worker import Liveness, Worker
from id3pm.serving.protocol.options import per_row
from id3pm.serving.protocol.photo import photo_bytes
from id3pm.serving.protocol.wire import (
    Array,
    Control,
    RequestKey,
    parse_faces,
    passed_on,
    strings,
)

logger = logging.getLogger(__name__)
CONTROL_OPS = ("ping", "cancel", "drain")
SWEEP_S = 0.25
"""Seconds from one check for callers that have left to the next: it takes 70 us for each."""
LEAST_WORK_S = 1e-3
"""Of a request without photographs, which is refused."""
GONE = "the caller cancelled the request or went away"
MISJUDGED = 1.5
"""A request that is so many times as much work as estimated waits again, behind smaller ones."""
STEP_MS = 150.0
"""Milliseconds between two signs of life, as the health check gets them. Not learned: see `Liveness`."""


class FaceModel(BackendModel):
    """Detection, alignment and face recognition, one photograph after the other: some 20 ms each.

    `execute` only takes requests; a thread answers them. So a ping is answered while a large photograph is processed.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        args: Arguments of `initialize`.
    """

    _metrics: FaceMetrics

    def __init__(self, pb: Backend, args: Mapping[str, str]) -> None:
        super().__init__(pb, args)
        self._stage = FaceStage.load(self._folder, threads())
        self._metrics = FaceMetrics(pb, args["model_name"])
        self._liveness = Liveness()
        self._draining = False
        self._queue = PhotoQueue()
        self._swept = time.monotonic()
        self._worker = Worker("faces")

    def close(self) -> None:
        """Answers what waits."""
        self._worker.close()
        super().close()

    answer = BackendModel.accept  # as model.py calls it in repositories of older versions

    def _control(self, control: Control, call: InferenceRequest, reply: Reply) -> None:
        reply.send({"status": strings([json.dumps(self._state(control, call.owner))])})

    def _state(self, control: Control, owner: str | None) -> dict[str, object]:
        if control.op not in CONTROL_OPS:
            raise InvalidInputError(f"control operation {control.op!r}: this model takes {', '.join(CONTROL_OPS)}")
        if control.op == "cancel":
            found, waited = self._queue.cancel(RequestKey(owner, control.request_id))
            self._end(waited)
            return {"id": control.request_id, "found": found}
        self._draining = self._draining or control.op == "drain"
        return self._status()

    def _status(self) -> dict[str, object]:
        requests = self._queue.requests
        return {
            "active": min(requests, 1),
            "waiting": max(requests - 1, 0),
            "paused": 0,
            "in_flight": requests,
            "loop_age_ms": round(min(self._worker.age_s, self._liveness.age_s) * 1e3),
            "step_ms": STEP_MS,
            "steps": self._worker.done,
            "answer_age_ms": 0,
            "backlog_s": round(self._queue.backlog_s, 3),
            "draining": self._draining,
        }

    def _enqueue(self, call: InferenceRequest, reply: Reply) -> None:
        if self._draining:
            raise draining()
        photos = list(call.tensors["photo"].flat) if "photo" in call.tensors else []
        work_s = sum(map(decoding_s, photos))
        request = PhotoRequest(call=call, reply=reply, size=sum(map(len, photos)), work_s=max(work_s, LEAST_WORK_S))
        self._sweep()
        self._queue.put(request)
        self._metrics.waiting(self._queue.photos)
        self._worker.put(self._work)

    def _sweep(self) -> None:
        """Ends requests whose callers have left, as far as Triton knows: those of direct gRPC calls."""
        now = time.monotonic()
        if now - self._swept > SWEEP_S:
            self._swept = now
            self._end(self._queue.drop_abandoned())

    def _end(self, requests: Sequence[PhotoRequest]) -> None:
        for request in requests:
            self._fail(request.reply, CancelledError(GONE))
        self._metrics.waiting(self._queue.photos)

    def _work(self) -> None:
        """Answers the next request, unless it was cancelled."""
        self._liveness.beat()
        self._sweep()
        while (request := self._queue.take()) is not None and self._misjudged(request):
            self._liveness.beat()
        if request is None:
            return
        taken_s: float | None = None
        try:
            self._metrics.queued(time.monotonic() - request.arrived)
            began = time.monotonic()
            outputs = self._outputs(request)
            taken_s = time.monotonic() - began
            self._metrics.done()  # before the answer, so that its receiver finds it counted
            request.reply.send(outputs)
        except Exception as error:  # any error: the caller must get it
            self._fail(request.reply, error)
        finally:
            self._queue.done(request, taken_s)
            self._metrics.waiting(self._queue.photos)

    def _misjudged(self, request: PhotoRequest) -> bool:
        """Whether a request is much more work than estimated, and waits again."""
        if request.exact or request.ended:
            return False
        try:
            work_s = sum(decoding_s(photo_bytes(photo), whole=True) for photo in request.call.tensor("photo").flat)
        except Id3pmError:  # it will be refused for that
            return False
        return work_s > MISJUDGED * request.work_s and self._queue.put_back(request, work_s)

    def _check_awaited(self, request: PhotoRequest) -> None:
        """Raises if no caller waits for a request any more."""
        if request.call.deadline is not None and request.call.deadline < time.monotonic():
            raise DeadlineError("the deadline passed before it was the photograph's turn")
        if request.ended or request.reply.abandoned:
            raise CancelledError(GONE)

    def _embed(self, request: PhotoRequest, photo: bytes, policy: FacePolicy) -> FaceResult:
        """The face in one photograph; counted."""
        began = asked = time.monotonic()

        def alive() -> None:
            nonlocal asked
            self._liveness.beat()
            if (now := time.monotonic()) - asked > SWEEP_S:
                asked = now
                request.ended = request.ended or request.reply.abandoned
            if request.ended:
                raise CancelledError(GONE)

        try:
            result = self._stage.embed(photo_bytes(photo), policy, alive)
        except Exception as error:
            if request.ended:  # decoders convert an exception that stops them to their own classes
                raise CancelledError(GONE) from error
            self._metrics.worked(time.monotonic() - began, error)
            raise
        self._metrics.worked(time.monotonic() - began)
        return result

    def _outputs(self, request: PhotoRequest) -> dict[str, Array]:
        call = request.call
        photos = call.tensor("photo").reshape(-1)
        policies = cast(list[FacePolicy], parse_faces(call.rows, call.tensors.get("face")))

        def embed(row: int) -> FaceResult:
            self._worker.beat()
            self._liveness.beat()
            self._check_awaited(request)
            return self._embed(request, photos[row], policies[row])

        results = per_row(call.rows, embed)
        embeddings = np.stack([result.embedding for result in results])
        outputs = {
            "embedding": embeddings,
            "id_vector": embeddings,  # see config.pbtxt
            "detection": np.stack([result.detection for result in results]),
            "faces": np.array([[result.faces] for result in results], dtype=np.int32),
            "turned": np.array([[result.turned] for result in results], dtype=np.int32),
            "id_vector_model": strings([self._stage.id_vector_model] * len(results)),
            "deadline": passed_on(call.deadline, len(results)),
        }
        return {name: array for name, array in outputs.items() if name in call.wanted}
