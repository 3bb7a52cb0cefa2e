"""The face stage as a Triton model: photograph -> ID vector."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from id3pm.errors import CancelledError, DeadlineError, DrainingError, InvalidInputError, OverloadedError
from id3pm.face.stage import FacePolicy, FaceResult, FaceStage
from id3pm.sampling.admission import DRAINING
from id3pm.serving.models.liveness import Pulse
from id3pm.serving.models.logs import log_to_triton, stop_logging
from id3pm.serving.models.metrics import FaceMetrics
from id3pm.serving.models.model_args import threads
from id3pm.serving.models.triton_backend import Call, Reply, code_of, limit_strings, read_call
from id3pm.serving.models.worker import Worker
from id3pm.serving.protocol.limits import MAX_WAITING_PHOTO_BYTES, MAX_WAITING_PHOTOS
from id3pm.serving.protocol.options import per_row
from id3pm.serving.protocol.wire import Array, Control, parse_control, parse_faces, passed_on, photo_bytes, strings

logger = logging.getLogger(__name__)
CONTROL_OPS = ("ping", "drain")
USUAL_S = 0.1
"""What a photograph may take, until some have been seen."""
STEP_MS = 150.0
"""What supervision is told of the time between two signs of life. It is not learned: see `liveness.py`."""


class FaceModel:
    """Detection, alignment and face recognition, one photograph after the other: some 20 ms each.

    `execute` only takes requests; a thread answers them. So a ping is answered while a large photograph is at work.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        args: What Triton gives to `initialize`.
    """

    def __init__(self, pb: Any, args: Mapping[str, str]) -> None:
        self._pb = pb
        self._log = log_to_triton(pb)
        limit_strings(pb)
        folder = Path(args["model_repository"]) / args["model_version"] / "engine"
        self._stage = FaceStage.load(folder, threads())
        self._metrics = FaceMetrics(pb, args["model_name"])
        self._pulse = Pulse()
        self._usual_s = USUAL_S
        self._draining = False
        self._lock = threading.Lock()  # guards the next two
        self._bytes = self._photos = 0
        self._worker = Worker("faces")

    def answer(self, request: Any) -> None:
        """Takes one request of the Python backend; it is answered later, exactly once, whatever happens."""
        reply = Reply(self._pb, request)
        try:
            call = read_call(request)
            if "control" in call.tensors:
                reply.send({"status": strings([json.dumps(self._control(parse_control(call.tensors["control"])))])})
            else:
                self._enqueue(call, reply)
        except Exception as error:  # whatever it is, the caller must hear of it
            self._fail(reply, error)

    def close(self) -> None:
        """Answers what waits."""
        self._worker.close()
        stop_logging(self._log)

    def _control(self, control: Control) -> dict[str, Any]:
        if control.op not in CONTROL_OPS:
            raise InvalidInputError(f"control operation {control.op!r}: this model takes {' and '.join(CONTROL_OPS)}")
        self._draining = self._draining or control.op == "drain"
        requests = self._worker.waiting
        return {
            "active": min(requests, 1),
            "waiting": max(requests - 1, 0),
            "paused": 0,
            "in_flight": requests,
            "loop_age_ms": round(min(self._worker.age_s, self._pulse.age_s) * 1e3),
            "step_ms": STEP_MS,
            "steps": self._worker.done,
            "answer_age_ms": 0,
            "backlog_s": round(self._photos * self._usual_s, 3),
            "draining": self._draining,
        }

    def _enqueue(self, call: Call, reply: Reply) -> None:
        if self._draining:
            raise DrainingError(DRAINING)
        size = sum(map(len, call.tensors["photo"].flat)) if "photo" in call.tensors else 0
        with self._lock:
            requests = self._worker.waiting
            if requests and (requests > MAX_WAITING_PHOTOS or self._bytes + size > MAX_WAITING_PHOTO_BYTES):
                raise OverloadedError(f"{requests} requests with photographs wait; retry after {1 + requests // 10} s")
            self._waits(size, call.rows)
        arrived = time.monotonic()
        self._worker.put(lambda: self._work(call, reply, size, arrived))

    def _work(self, call: Call, reply: Reply, size: int, arrived: float) -> None:
        self._pulse.beat()
        try:
            self._metrics.queued(time.monotonic() - arrived)
            self._check_awaited(call, reply)
            outputs = self._outputs(call, reply)
            self._metrics.done()  # before the answer, so that its receiver finds himself counted
            reply.send(outputs)
        except Exception as error:  # whatever it is, the caller must hear of it
            self._fail(reply, error)
        finally:
            with self._lock:
                self._waits(-size, -call.rows)

    def _waits(self, size: int, photos: int) -> None:
        """Counts what waits, with what is at work."""
        self._bytes += size
        self._photos += photos
        self._metrics.waiting(self._photos)

    def _fail(self, reply: Reply, error: Exception) -> None:
        try:
            self._metrics.error(error, code_of(error))
        finally:
            reply.fail(error)

    @staticmethod
    def _check_awaited(call: Call, reply: Reply) -> None:
        if call.deadline is not None and call.deadline < time.monotonic():
            raise DeadlineError("the deadline passed before it was the photograph's turn")
        if reply.abandoned:
            raise CancelledError("the caller cancelled the request or went away")

    def _embed(self, photo: Any, policy: FacePolicy) -> FaceResult:
        """The face in one photograph; counted."""
        began = time.monotonic()
        try:
            result = self._stage.embed(photo_bytes(photo), policy, self._pulse.beat)
        except Exception as error:
            self._metrics.worked(time.monotonic() - began, error)
            raise
        taken_s = time.monotonic() - began
        self._usual_s += 0.1 * (taken_s - self._usual_s)
        self._metrics.worked(taken_s)
        return result

    def _outputs(self, call: Call, reply: Reply) -> dict[str, Array]:
        photos = call.tensor("photo").reshape(-1)
        policies = cast(list[FacePolicy], parse_faces(call.rows, call.tensors.get("face")))

        def embed(row: int) -> FaceResult:
            self._worker.beat()
            self._pulse.beat()
            if row:  # the photographs before took their time
                self._check_awaited(call, reply)
            return self._embed(photos[row], policies[row])

        results = per_row(call.rows, embed)
        embeddings = np.stack([result.embedding for result in results])
        outputs = {
            "embedding": embeddings,
            "id_vector": embeddings,  # see config.pbtxt
            "detection": np.stack([result.detection for result in results]),
            "faces": np.array([[result.faces] for result in results], dtype=np.int32),
            "id_vector_model": strings([self._stage.id_vector_model] * len(results)),
            "deadline": passed_on(call.deadline, len(results)),
        }
        return {name: array for name, array in outputs.items() if name in call.wanted}
