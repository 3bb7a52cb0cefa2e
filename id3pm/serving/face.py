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
from id3pm.serving.logs import log_to_triton, stop_logging
from id3pm.serving.model_args import threads
from id3pm.serving.options import per_row
from id3pm.serving.triton import Call, Reply, limit_strings, read_call
from id3pm.serving.wire import Array, Control, parse_control, parse_faces, passed_on, photo_bytes, strings
from id3pm.serving.worker import Worker

logger = logging.getLogger(__name__)
CONTROL_OPS = ("ping", "drain")
MAX_WAITING = 256
"""Requests that may wait."""
MAX_WAITING_BYTES = 256 * 2**20
"""Bytes of photographs that may wait; one request may be larger where nobody waits."""
USUAL_S = 0.4
"""What a photograph may take, until one has taken longer."""


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
        self._slowest_s = USUAL_S
        self._draining = False
        self._lock = threading.Lock()  # guards the next one
        self._bytes = 0
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
            reply.fail(error)

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
            "loop_age_ms": round(self._worker.age_s * 1e3),
            "step_ms": round(self._slowest_s * 1e3, 3),
            "steps": self._worker.done,
            "answer_age_ms": 0,
            "backlog_s": round(requests * self._slowest_s, 3),
            "draining": self._draining,
        }

    def _enqueue(self, call: Call, reply: Reply) -> None:
        if self._draining:
            raise DrainingError(DRAINING)
        size = sum(map(len, call.tensors["photo"].flat)) if "photo" in call.tensors else 0
        with self._lock:
            requests = self._worker.waiting
            if requests and (requests > MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES):
                raise OverloadedError(f"{requests} requests with photographs wait; retry after {1 + requests // 10} s")
            self._bytes += size
        self._worker.put(lambda: self._work(call, reply, size))

    def _work(self, call: Call, reply: Reply, size: int) -> None:
        try:
            if call.deadline is not None and call.deadline < time.monotonic():
                raise DeadlineError("the deadline passed before it was the photograph's turn")
            if reply.abandoned:
                raise CancelledError("the caller cancelled the request or went away")
            reply.send(self._outputs(call))
        except Exception as error:  # whatever it is, the caller must hear of it
            reply.fail(error)
        finally:
            with self._lock:
                self._bytes -= size

    def _outputs(self, call: Call) -> dict[str, Array]:
        photos = call.tensor("photo").reshape(-1)
        policies = cast(list[FacePolicy], parse_faces(call.rows, call.tensors.get("face")))

        def embed(row: int) -> FaceResult:
            self._worker.beat()
            began = time.monotonic()
            result = self._stage.embed(photo_bytes(photos[row]), policies[row])
            self._slowest_s = max(self._slowest_s, time.monotonic() - began)
            return result

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
