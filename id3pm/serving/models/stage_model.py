"""The Triton model of a diffusion stage: reads requests, schedules their rows, answers from its own thread."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import itertools
import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from id3pm.diffusion import noise
from id3pm.diffusion.plans import check_options
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.manifest import read_manifest
from id3pm.errors import CancelledError, EngineError
from id3pm.face.manifest import takes_unit_vectors
from id3pm.sampling.cost import warm_up
from id3pm.sampling.request import Sample, SampleRequest, validated
from id3pm.sampling.scheduler import StepScheduler
from id3pm.serving.models.backend_model import BackendModel
from id3pm.serving.models.logs import shown
from id3pm.serving.models.long_poll import LongPolls, Watch
from id3pm.serving.models.metrics import StageMetrics
from id3pm.serving.models.model_args import (
    compute_lock,
    device_of,
    parameter,
    require_one_instance,
    threads,
    warn_of_empty_rows,
)
from id3pm.serving.models.request_registry import Outcome, PendingRows, RegisteredRequest, RequestRegistry, content_of
from id3pm.serving.models.stage_answers import description, row_progress, status
from id3pm.serving.models.stage_observer import StageObserver
from id3pm.serving.models.triton_backend import InferenceRequest, Reply
from id3pm.serving.models.triton_types import Backend
from id3pm.serving.models.worker import Worker
from id3pm.serving.protocol.options import RowOptions, parse_rows, per_row
from id3pm.serving.protocol.wire import OPTION_NAMES, STAGES, Array, Control, RequestKey, Stage, passed_on, strings

logger = logging.getLogger(__name__)
_SEED_KEY = secrets.token_bytes(32)  # of this process, so that no id has a seed that others can know
_HOUSEKEEPING_S = 0.25  # a check for a disconnected caller takes 70 us per request in flight


class StageInputs(TypedDict, total=False):
    """The inputs of one image, fields of `SampleRequest`."""

    identity: Array
    attributes: Array | None
    low_res: Array


class StageModel(BackendModel):
    """One diffusion stage behind Triton.

    `execute` only checks and enqueues; the scheduler's thread samples; one more thread turns samples into answers, and
    one answers long polls, so that encoding pictures never delays a step.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        args: Arguments of `initialize`.
    """

    stage: Stage
    stage_index: int  # of the seed contract
    source: str  # the input that an image is made from

    _metrics: StageMetrics

    def __init__(self, pb: Backend, args: Mapping[str, str]) -> None:
        super().__init__(pb, args)
        require_one_instance(args)
        self.manifest = read_manifest(self._folder)
        if self.manifest.stage != self.stage:
            raise EngineError(f"the engine is of stage {self.manifest.stage}, this model serves {self.stage}")
        max_rows = parameter(args, "max_rows")
        self.unit_vectors = takes_unit_vectors(
            self.manifest.l2_normalised,
            self.manifest.id_vector_model,
            Path(args["model_repository"]).parent / "face_embedding" / "1" / "engine",
        )
        self.engine = self.load(args)
        warn_of_empty_rows(self.manifest, max_rows)
        cost = warm_up(self.engine, max_rows)
        self._metrics = StageMetrics(pb, args["model_name"])
        self._registry = RequestRegistry()
        self._long_polls = LongPolls(self._has_news, self._progress)
        self._scheduler = StepScheduler(
            self.engine,
            self.manifest.diffusion,
            self.stage_index,
            max_rows=max_rows,
            max_waiting=parameter(args, "max_waiting"),
            max_backlog_s=parameter(args, "max_backlog_s"),
            cost=cost,
            observer=StageObserver(self._metrics, self._long_polls, self.engine.max_batch),
            compute_lock=compute_lock(self.manifest.target, STAGES.index(self.stage), len(STAGES)),
        )
        self._serial = itertools.count(1)
        self._answers = Worker("answers")
        self._stopping = threading.Event()
        self._housekeeper = threading.Thread(target=self._housekeeping, name="housekeeping", daemon=True)
        self._housekeeper.start()
        logger.info("%s: a step of 1 row takes %.3g s", args["model_name"], cost.step_s(1))

    def load(self, args: Mapping[str, str]) -> Engine:
        """The engine of the model's folder, on the device that Triton gave this instance."""
        return load_engine(self._folder, device_of(args, self.manifest.target), threads())

    @abc.abstractmethod
    def inputs_of(self, call: InferenceRequest, row: int, options: RowOptions) -> StageInputs:
        """What the U-Net gets for one image beside its noise.

        Raises:
            InvalidInputError: An input breaks a rule.
        """

    def seed_of(self, call: InferenceRequest, row: int) -> int:
        """The seed of an image for which none was sent: random, 0 .. 2^32 - 1.

        It is the same for the same id, so that a request which comes again is still equal.

        Raises:
            InvalidInputError: An input that decides it breaks a rule.
        """
        if not call.id:
            return noise.drawn_seed()
        digest = hashlib.blake2b(f"{row}/{call.id}".encode(), key=_SEED_KEY, digest_size=noise.DRAWN_BITS // 8)
        return int.from_bytes(digest.digest(), "little")

    @abc.abstractmethod
    def outputs(
        self, call: InferenceRequest, requests: Sequence[SampleRequest], samples: Sequence[Sample]
    ) -> dict[str, Array]:
        """The output tensors that were asked for, from the finished samples of all rows."""

    def sign_of_life(self) -> None:
        """Called between long parts of `outputs`, to show that the answering thread does not hang."""
        self._answers.beat()

    def close(self) -> None:
        """Finishes what is in flight within Triton's time for it, then frees the engine."""
        ended = self._scheduler.close()
        self._answers.close()
        self._long_polls.close()
        self._stopping.set()
        self._housekeeper.join(timeout=5.0)
        if ended:  # else an engine call hangs, and freeing its memory would crash
            self.engine.close()
        super().close()

    def _enqueue(self, call: InferenceRequest, reply: Reply) -> None:
        if "deadline_64" in call.wanted:  # each caller's own, also where it gets the answer of another request
            reply.own["deadline_64"] = passed_on(call.deadline, call.rows)
        serial = next(self._serial)
        name = call.id or f"anonymous-{serial}"
        ids = [f"{name}/{row}#{serial}" for row in range(call.rows)]  # a request may come again while its first ends
        parsed = parse_rows(
            self.stage,
            call.rows,
            call.tensors,
            call.parameters,
            self.manifest.sampling,
            self.manifest.attribute_set,
            lambda row: self.seed_of(call, row),
        )
        registered = RegisteredRequest(
            name=name,
            requests=self._sample_requests(call, parsed, ids),  # first: it checks what is hashed then
            content=content_of(call, parsed) if call.id else None,
            call=call,
            pending=PendingRows(
                call.rows, lambda outcome: self._answers.put(lambda: self._answer(registered, outcome))
            ),
            replies=[reply],
        )
        entered = self._registry.enter(registered)
        if not isinstance(entered, RegisteredRequest):
            self._metrics.joined("recent")
            self._send([reply], entered)
        elif entered is not registered:
            self._metrics.joined("in_flight")
            logger.info("request %s came again and joins the one in flight", shown(name))
            for request in entered.requests:  # the work may take as long as the latest deadline
                self._scheduler.extend(request.id, call.deadline)
        else:
            try:
                collectors = map(registered.pending.collector, range(call.rows))
                self._scheduler.submit_all(list(zip(registered.requests, collectors, strict=True)))
                registered.submitted = True
            except Exception as error:
                registered.pending.end(error)
            if registered.pending.failed:  # also where its callers have left meanwhile
                for request in registered.requests:
                    self._scheduler.cancel(request.id)

    def _sample_requests(
        self, call: InferenceRequest, rows: Sequence[RowOptions], ids: Sequence[str]
    ) -> list[SampleRequest]:
        """One request to the scheduler per row."""
        call.tensor(self.source)  # an error of all rows where it is missing

        def request(index: int) -> SampleRequest:
            row = rows[index]
            request = SampleRequest(
                id=ids[index],
                seed=row.seed,
                options=row.options,
                deadline=call.deadline,
                priority=row.priority,
                caller=call.caller,
                **self.inputs_of(call, index, row),
            )
            check_options(self.manifest.diffusion, row.options, OPTION_NAMES[self.stage])
            names = {"identity": "embedding"}  # what the library calls identity is `embedding` to the sender
            return validated(request, self.engine.config, unit_vectors=self.unit_vectors, names=names)

        return per_row(len(rows), request)

    def _answer(self, registered: RegisteredRequest, outcome: Outcome) -> None:
        """Answers a request; runs in the answering thread."""
        try:
            for request in registered.requests:  # after an error of one row, no caller waits for its siblings
                self._scheduler.cancel(request.id)
            if isinstance(outcome, Exception):
                raise outcome
            outputs = self.outputs(registered.call, registered.requests, outcome)
        except Exception as error:
            for reply in self._registry.leave(registered, None):
                self._fail(reply, error)
        else:
            seconds = time.monotonic() - registered.arrived
            logger.info("request %s: %d images in %.3g s", shown(registered.name), len(registered.requests), seconds)
            self._send(self._registry.leave(registered, outputs), outputs)
        finally:
            self._registry.answered()
            self._long_polls.changed()

    def _send(self, replies: Sequence[Reply], outputs: Mapping[str, Array]) -> None:
        for _ in replies:
            self._metrics.done()
        self._metrics.flush()  # before the answer, so that its receiver finds it counted
        for reply in replies:
            try:
                reply.send(outputs)
            except Exception as error:  # the others are still to be answered
                reply.fail(error)

    def _control(self, control: Control, call: InferenceRequest, reply: Reply) -> None:
        """Answers a control request: now, or from the thread of the long polls where there are pictures to encode."""
        key = RequestKey(call.owner, control.request_id)
        if control.op in ("watch", "progress"):
            watch = Watch(
                request=key,
                after_step=control.after_step,
                preview=control.preview,
                reply=reply,
                caller=call.caller,
            )
            at_once = control.op == "progress"
            self._long_polls.add(dataclasses.replace(watch, until=time.monotonic()) if at_once else watch)
            return
        reply.send({"status": strings([json.dumps(self._state(control, key))])})

    def _state(self, control: Control, key: RequestKey) -> dict[str, object]:
        if control.op == "describe":
            return description(self.manifest, self.stage, unit_vectors=self.unit_vectors)
        if control.op == "cancel":
            found = self._registry.find(key)
            for registered in found:
                self._end(registered, "the request was cancelled")
            return {"id": key.id, "found": bool(found)}
        if control.op == "drain":
            logger.info("draining: new requests are refused")
            self._scheduler.drain()
        return self._status()

    def _status(self) -> dict[str, object]:
        return status(self._scheduler.status(), self._registry.unanswered, self._answers.age_s)

    def _end(self, registered: RegisteredRequest, reason: str) -> None:
        """Frees the rows of a request at once, and answers all its callers."""
        registered.pending.end(CancelledError(reason))
        for request in registered.requests:
            self._scheduler.cancel(request.id)

    def _submitted(self, key: RequestKey) -> RegisteredRequest | None:
        """A request in flight that has rows; without rows yet, it would look as if it were done."""
        return next((registered for registered in self._registry.find(key) if registered.submitted), None)

    def _has_news(self, key: RequestKey, after_step: int) -> bool:
        registered = self._submitted(key)
        if registered is None:
            return True
        rows = (self._scheduler.progress(request.id, preview=False) for request in registered.requests)
        return any(row is not None and row.step > after_step for row in rows)

    def _progress(self, key: RequestKey, preview: bool = True) -> dict[str, object]:
        """Progress of the rows of a request: JSON-ready."""
        registered = self._submitted(key)
        if registered is None:
            return {"id": key.id, "found": False}
        rows = [row_progress(self._scheduler.progress(request.id, preview)) for request in registered.requests]
        return {"id": key.id, "found": True, "rows": rows}

    def _housekeeping(self) -> None:
        """Updates the gauges, and stops work of disconnected callers."""
        while not self._stopping.wait(_HOUSEKEEPING_S):
            self._metrics.show(self._scheduler.status())
            self._metrics.flush()
            for registered in self._registry.all():
                if registered.abandoned:
                    self._end(registered, "the caller cancelled the request or went away")
