"""What the Triton model of a diffusion stage does: read requests, schedule their rows, answer from its own thread."""

from __future__ import annotations

import abc
import base64
import itertools
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from id3pm.engines.base import load_engine
from id3pm.engines.manifest import read_manifest
from id3pm.errors import CancelledError, EngineError, InvalidInputError
from id3pm.images import encode_png
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.scheduler import StepScheduler
from id3pm.serving.metrics import MeteredEngine, StageMetrics
from id3pm.serving.model_args import device_of, parameter, threads
from id3pm.serving.options import Row, parse_rows
from id3pm.serving.pending import Outcome, PendingRows
from id3pm.serving.triton import Call, Reply, read_call
from id3pm.serving.wire import Array, Stage, parse_control, strings

_HOUSEKEEPING_S = 0.25  # asking whether a caller has gone costs 70 us per request in flight


class StageModel(abc.ABC):
    """One diffusion stage behind Triton.

    `execute` only checks and enqueues; the scheduler's thread samples; one more thread turns samples into answers, so
    that encoding pictures never delays a step.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        args: What Triton gives to `initialize`.
    """

    stage: Stage
    stage_index: int  # of the seed contract

    def __init__(self, pb: Any, args: Mapping[str, str]) -> None:
        self._pb = pb
        folder = Path(args["model_repository"]) / args["model_version"] / "engine"
        self.manifest = read_manifest(folder)
        if self.manifest.stage != self.stage:
            raise EngineError(f"the engine is of stage {self.manifest.stage}, this model serves {self.stage}")
        self.engine = load_engine(folder, device_of(args, self.manifest.target), threads())
        self._metrics = StageMetrics(pb, args["model_name"])
        self._scheduler = StepScheduler(
            MeteredEngine(self.engine, self._metrics),
            self.manifest.diffusion,
            self.stage_index,
            max_rows=parameter(args, "max_rows"),
            max_waiting=parameter(args, "max_waiting"),
        )
        self._lock = threading.Lock()  # guards the next two
        self._in_flight: dict[str, tuple[PendingRows, Reply]] = {}
        self._unanswered = 0
        self._anonymous = itertools.count(1)
        self._answers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
        self._stopping = threading.Event()
        self._housekeeper = threading.Thread(target=self._keep_house, name="housekeeping", daemon=True)
        self._housekeeper.start()

    @abc.abstractmethod
    def sample_requests(self, call: Call, rows: Sequence[Row], ids: Sequence[str]) -> list[SampleRequest]:
        """One request to the scheduler per row.

        Raises:
            InvalidInputError: An input breaks a rule.
        """

    @abc.abstractmethod
    def outputs(self, call: Call, requests: Sequence[SampleRequest], samples: Sequence[Sample]) -> dict[str, Array]:
        """The output tensors that were asked for, from the finished samples of all rows."""

    def accept(self, request: Any) -> None:
        """Takes one request of the Python backend; it is answered later, exactly once, whatever happens."""
        reply = Reply(self._pb, request)
        try:
            call = read_call(request)
            if "control" in call.tensors:
                reply.send({"status": strings([json.dumps(self._control(*parse_control(call.tensors["control"])))])})
            else:
                self._enqueue(call, reply)
        except Exception as error:  # whatever it is, the caller must hear of it
            self._metrics.error(reply.fail(error))

    def close(self) -> None:
        """Finishes what is in flight within Triton's patience, then frees the engine."""
        ended = self._scheduler.close()
        self._answers.shutdown()
        self._stopping.set()
        self._housekeeper.join(timeout=5.0)
        if ended:  # else an engine call hangs, and freeing its memory would crash
            self.engine.close()

    def _enqueue(self, call: Call, reply: Reply) -> None:
        name = call.id or f"anonymous-{next(self._anonymous)}"
        ids = [f"{name}/{row}" for row in range(call.rows)]
        parsed = parse_rows(self.stage, call.rows, call.tensors, call.parameters, self.manifest.sampling)
        samples = self.sample_requests(call, parsed, ids)

        def on_outcome(outcome: Outcome) -> None:
            self._answers.submit(self._answer, name, call, reply, samples, outcome)

        pending = PendingRows(ids, on_outcome)
        with self._lock:
            if name in self._in_flight:
                raise InvalidInputError(f"request id {name[:64]!r} is in flight already: choose unique ids")
            self._in_flight[name] = (pending, reply)
            self._unanswered += 1
        try:
            for row, sample in enumerate(samples):
                self._scheduler.submit(sample, pending.collector(row))
        except Exception as error:  # a row was refused: so is the request
            pending.end(error)

    def _answer(self, name: str, call: Call, reply: Reply, requests: Sequence[SampleRequest], outcome: Outcome) -> None:
        """Answers a request; runs in the answering thread."""
        try:
            for request in requests:  # after an error of one row, nobody waits for its siblings
                self._scheduler.cancel(request.id)
            with self._lock:  # before the answer: its receiver may use the id again
                del self._in_flight[name]
            if isinstance(outcome, Exception):
                raise outcome
            outputs = self.outputs(call, requests, outcome)
            self._count(outcome)
            reply.send(outputs)
        except Exception as error:
            self._metrics.error(reply.fail(error))
        finally:
            with self._lock:
                self._unanswered -= 1

    def _count(self, samples: Sequence[Sample]) -> None:
        self._metrics.images.increment(len(samples))
        for sample in samples:
            self._metrics.steps.increment(sample.steps)
            self._metrics.image_seconds.observe(sample.waited_s + sample.sampled_s)

    def _control(self, op: str, request_id: str) -> dict[str, Any]:
        """The answer to a control request: JSON-ready."""
        if op == "drain":
            self._scheduler.drain()
        if op in ("ping", "drain"):
            return self._status()
        with self._lock:
            pending, _ = self._in_flight.get(request_id, (None, None))
        if pending is None:
            return {"id": request_id, "found": False}
        if op == "cancel":
            pending.end(CancelledError("the request was cancelled"))
            return {"id": request_id, "found": True}
        return {"id": request_id, "found": True, "rows": [self._progress(row_id) for row_id in pending.row_ids]}

    def _status(self) -> dict[str, Any]:
        status = self._scheduler.status()
        with self._lock:
            in_flight = self._unanswered
        return {
            "active": status.active,
            "waiting": status.waiting,
            "in_flight": in_flight,
            "loop_age_ms": round(status.loop_age_s * 1e3),
            "draining": status.draining,
        }

    def _progress(self, row_id: str) -> dict[str, Any]:
        progress = self._scheduler.progress(row_id)
        if progress is None:  # done, while the request's other rows are not
            return {"done": True}
        preview = (
            None
            if progress.preview is None
            else base64.b64encode(encode_png(progress.preview, generated=True)).decode()
        )
        return {"done": False, "step": progress.step, "steps": progress.steps, "preview_png": preview}

    def _keep_house(self) -> None:
        """Shows how much is going on, and stops work whose caller has gone."""
        while not self._stopping.wait(_HOUSEKEEPING_S):
            status = self._scheduler.status()
            self._metrics.active_rows.set(status.active)
            self._metrics.waiting_rows.set(status.waiting)
            with self._lock:
                in_flight = list(self._in_flight.values())
            for pending, reply in in_flight:
                if reply.abandoned:
                    pending.end(CancelledError("the caller cancelled the request or went away"))
