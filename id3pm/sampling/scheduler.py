"""The step scheduler: a thread that samples many requests together, one batched U-Net step at a time.

Every iteration takes all active rows, at whatever step each of them is, through one evaluation of the U-Net. Rows that
are done leave, waiting rows take their places: nobody waits for the end of somebody else's loop.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig
from id3pm.diffusion.samplers import plan
from id3pm.engines.base import Engine
from id3pm.errors import (
    CancelledError,
    DeadlineError,
    DrainingError,
    EngineError,
    Id3pmError,
    InvalidInputError,
    OverloadedError,
)
from id3pm.images import to_uint8
from id3pm.sampling.batch import OnDone, Row, RowBatch
from id3pm.sampling.request import Sample, SampleRequest, validated

logger = logging.getLogger(__name__)
IDLE_BEAT_S = 1.0


class Progress(NamedTuple):
    """How far a request is: steps made, steps in all, and its predicted image, uint8 [S, S, 3] (`None` at step 0)."""

    step: int
    steps: int
    preview: NDArray[np.uint8] | None


class Status(NamedTuple):
    """Rows being sampled, rows waiting, seconds since the loop's last sign of life, and whether it refuses new work.

    The loop gives a sign of life before every step and every second when idle, so a healthy age is at most one step.
    """

    active: int
    waiting: int
    loop_age_s: float
    draining: bool


class StepScheduler:
    """Samples requests of one stage on one engine, which it alone uses.

    Results do not depend on the company: equal requests give bit-identical images wherever the engine's rows are
    independent of each other.
    """

    def __init__(
        self, engine: Engine, diffusion: DiffusionConfig, stage: int, max_rows: int = 16, max_waiting: int = 256
    ) -> None:
        """Starts the thread.

        Args:
            engine: The U-Net of the stage.
            diffusion: The process the U-Net was trained with.
            stage: `STAGE_BASE` or `STAGE_SR` of the seed contract.
            max_rows: Most requests that are sampled at a time. Guided ones evaluate two rows.
            max_waiting: Most requests that wait behind those.
        """
        self.engine = engine
        self._diffusion = diffusion
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._batch = RowBatch(engine, stage)
        self._in_flight: dict[str, Row] = {}  # waiting and active, by request id
        self._arrivals = itertools.count()
        self._changed = threading.Condition()  # guards all fields but _batch, which belongs to the thread
        self._draining = self._closing = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name=f"step-scheduler-{stage}", daemon=True)
        self._thread.start()

    def submit(self, request: SampleRequest, on_done: OnDone) -> None:
        """Queues a request.

        Args:
            request: What to sample.
            on_done: Called exactly once, from the scheduler's thread or from the one that calls `cancel` or `close`,
                with the `Sample` or with the error that ended the request. It should return soon: sampling waits for
                it. Never called where this method raises.

        Raises:
            InvalidInputError: The request breaks a rule, or its id is in flight already.
            OverloadedError: Too many requests wait.
            DrainingError: No new work is taken.
        """
        request = validated(request, self.engine.config)
        steps = plan(self._diffusion, request.options, self.engine.config.learn_sigma)
        deadline = math.inf if request.deadline is None else request.deadline
        with self._changed:
            if self._draining or self._closing:
                raise DrainingError("this server is draining and takes no new requests; send it to another")
            if request.id in self._in_flight:
                raise InvalidInputError(f"request id {request.id!r} is in flight already; choose unique ids")
            if len(self._in_flight) >= self._max_rows + self._max_waiting:
                waiting = len(self._in_flight) - self._max_rows
                raise OverloadedError(f"{waiting} requests wait, as many as are allowed; try again later")
            rank = (request.priority, deadline, next(self._arrivals))
            self._in_flight[request.id] = Row(
                request=request, plan=steps, on_done=on_done, rank=rank, submitted=time.monotonic()
            )
            self._changed.notify_all()

    def cancel(self, request_id: str) -> bool:
        """Ends a request with `CancelledError`, at once; false where none of this id is in flight."""
        with self._changed:
            row = self._in_flight.get(request_id)
        return row is not None and self._answer(row, CancelledError("the request was cancelled"))

    def progress(self, request_id: str) -> Progress | None:
        """How far a request is, or `None` where none of this id is in flight."""
        with self._changed:
            row = self._in_flight.get(request_id)
        if row is None:
            return None
        step, x0 = row.step, row.x0
        return Progress(step, len(row.plan), None if x0 is None else to_uint8(x0))

    def status(self) -> Status:
        """A snapshot."""
        with self._changed:
            active = sum(row.started is not None for row in self._in_flight.values())
            waiting = len(self._in_flight) - active
            return Status(active, waiting, time.monotonic() - self._beat, self._draining or self._closing)

    def drain(self) -> None:
        """Takes no new work from now on; what is in flight is finished."""
        with self._changed:
            self._draining = True

    def close(self, timeout_s: float = 30.0) -> bool:
        """Finishes what is in flight within `timeout_s` seconds, cancels the rest, ends the thread.

        Returns:
            Whether the thread has ended. If not, an engine call hangs, and the engine must not be closed.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        for row in self._rows():
            self._answer(row, CancelledError("the server shut down before the request was done"))
        self._thread.join(IDLE_BEAT_S)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while self._await_work():
            try:
                self._expire()
                self._admit()
                left = self._batch.step()
            except Exception as error:  # whatever it is, callers must hear of it, and the next request must be served
                logger.exception("a step of %d rows failed", len(self._batch.rows))
                left = self._fail(error)
            for row, outcome in left:
                self._answer(row, outcome)

    def _await_work(self) -> bool:
        with self._changed:
            while not (self._in_flight or self._closing):
                self._beat = time.monotonic()
                self._changed.wait(IDLE_BEAT_S)
            self._beat = time.monotonic()
            return bool(self._in_flight)

    def _expire(self) -> None:
        now = time.monotonic()
        for row in self._rows():
            if row.request.deadline is not None and row.request.deadline < now:
                self._answer(row, DeadlineError(f"the deadline passed at step {row.step} of {len(row.plan)}"))

    def _admit(self) -> None:
        self._batch.keep([not row.answered for row in self._batch.rows])
        free = self._max_rows - len(self._batch.rows)
        waiting = (row for row in self._rows() if row.started is None)
        for row in heapq.nsmallest(free, waiting, key=lambda row: row.rank):
            row.started = time.monotonic()
            self._batch.add(row)

    def _fail(self, error: Exception) -> list[tuple[Row, Sample | EngineError]]:
        """Empties the batch after an exception: its rows, each with an error that carries no internals."""
        reason = str(error) if isinstance(error, Id3pmError) else type(error).__name__
        self._batch.clear()
        return [
            (row, EngineError(f"the engine failed at step {row.step} of {len(row.plan)}: {reason}"))
            for row in self._rows()
            if row.started is not None
        ]

    def _rows(self) -> list[Row]:
        with self._changed:
            return list(self._in_flight.values())

    def _answer(self, row: Row, outcome: Sample | Id3pmError) -> bool:
        """Calls a row's `on_done`, if nobody has yet; the lock is free meanwhile."""
        with self._changed:
            if row.answered:
                return False
            row.answered = True
            del self._in_flight[row.request.id]
        try:
            row.on_done(outcome)
        except Exception:
            logger.exception("the receiver of a result failed")
        return True
