"""The step scheduler: a thread that samples many requests together, one batched U-Net step at a time.

Every iteration takes the rows that the policy chooses, at whatever step each of them is, through one evaluation of the
U-Net. The others pause. No request waits for the end of another's loop.

On a device the loop runs one step ahead: the next step is chosen and enqueued while this one computes, and only then is
this one's result read. So a row that is cancelled or fails still takes part in one step, and no later one.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import threading
import time
from collections.abc import Iterable, Sequence

from id3pm.config import DiffusionConfig
from id3pm.diffusion.samplers import plan
from id3pm.engines.base import Engine
from id3pm.errors import CancelledError, DeadlineError, EngineError, Id3pmError, InvalidInputError, StoppedError
from id3pm.formats.images import to_uint8
from id3pm.sampling.admission import Limits, Load, check_deadline, draining
from id3pm.sampling.batch import Left, RowBatch, Step
from id3pm.sampling.compute_lock import NOTHING, Claim, ComputeLock, NoComputeLock
from id3pm.sampling.cost import CostModel
from id3pm.sampling.observer import Observer
from id3pm.sampling.policy import best, choose, due_time, take_place, urgency
from id3pm.sampling.request import Sample, SampleRequest, validated
from id3pm.sampling.row import OnDone, Place, Row
from id3pm.sampling.status import RequestProgress, Status

logger = logging.getLogger(__name__)
IDLE_BEAT_S = 1.0


class StepScheduler:
    """Samples requests of one stage on one engine, which it owns.

    Results do not depend on the batch: equal requests give bit-identical images wherever the engine's rows are
    independent of each other.
    """

    def __init__(
        self,
        engine: Engine,
        diffusion: DiffusionConfig,
        stage: int,
        max_rows: int = 16,
        max_waiting: int = 256,
        max_backlog_s: float = math.inf,
        cost: CostModel | None = None,
        observer: Observer | None = None,
        compute_lock: ComputeLock | None = None,
    ) -> None:
        """Starts the thread.

        Args:
            engine: The U-Net of the stage.
            diffusion: The process the U-Net was trained with.
            stage: `STAGE_BASE` or `STAGE_SR` of the seed contract.
            max_rows: Most requests that are sampled at a time. Guided ones evaluate two rows.
            max_waiting: Most requests that wait behind those: bounds the memory.
            max_backlog_s: Most seconds of work that may be in flight when a request arrives: bounds the waiting.
            cost: Cost model of the engine; see `warm_up`.
            observer: Called after each step and for each answer.
            compute_lock: Shared with the stages that compute on the same processor; closed with the scheduler.
        """
        self.engine = engine
        self._diffusion = diffusion
        self._max_rows = max_rows
        self._limits = Limits(max_rows, max_waiting, max_backlog_s)
        self._cost = cost or CostModel()
        # Due times use the cost that was known at the start: with a cost that is still learned, the later one of two
        # equal requests could be due before the earlier one, by seconds, and so could all who come after.
        self._yardstick = copy.deepcopy(self._cost)
        self._observer = observer or Observer()
        self._compute_lock = compute_lock or NoComputeLock()
        self._batch = RowBatch(engine, stage)
        self._enqueued: Step | None = None  # on the device, its result not read yet
        self._step_s = self._cost.step_s(1)
        self._steps = 0
        self._in_flight: dict[str, Row] = {}  # waiting, active and paused, by request id
        self._arrivals = itertools.count()
        self._clock = 0.0  # virtual time of the queue of callers, see the policy
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
            OverloadedError: Too many requests wait, or too much work; the message says for how long.
            DeadlineError: The time left is not half of what the steps take on a free machine.
            DrainingError: No new work is taken.
        """
        self.submit_all([(request, on_done)])

    def submit_all(self, requests: Sequence[tuple[SampleRequest, OnDone]]) -> None:
        """Queues several requests at once: all of them, or none where it raises. See `submit`."""
        rows = [self._row(request, on_done) for request, on_done in requests]
        with self._changed:
            if self._draining or self._closing:
                raise draining()
            for row in rows:
                if row.request.id in self._in_flight:
                    raise InvalidInputError(f"request id {row.request.id!r} is in flight already; choose unique ids")
            callers = {row.request.caller for row in rows}
            for caller in callers:
                self._check_room(caller, sum(row.request.caller == caller for row in rows))
            for row in rows:
                row.order = next(self._arrivals)
                row.place = self._place(row)
                self._in_flight[row.request.id] = row
            self._changed.notify_all()
        self._batch.noise.begin(rows)

    def _row(self, request: SampleRequest, on_done: OnDone) -> Row:
        request = validated(request, self.engine.config)
        steps = plan(self._diffusion, request.options, self.engine.config.learn_sigma)
        now = time.monotonic()
        deadline = math.inf if request.deadline is None else request.deadline
        check_deadline(deadline - now, self._cost.service_s(steps) if self._cost.known else 0.0)
        due = due_time(now, self._yardstick.service_s(steps, self._max_rows), request.priority, deadline)
        return Row(request=request, plan=steps, on_done=on_done, submitted=now, due=due, deadline=deadline)

    def _check_room(self, caller: str, more: int) -> None:
        """Raises `OverloadedError` where a caller may have no more rows in flight."""
        rows = list(self._in_flight.values())
        own = [row for row in rows if row.request.caller == caller]
        callers = len({caller, *(row.request.caller for row in rows)})
        load, share = (Load(len(some), self._work_s(some), callers) for some in (rows, own))
        self._limits.check(load, share, more)

    def _place(self, row: Row) -> Place:
        own = (other.place for other in self._in_flight.values() if other.request.caller == row.request.caller)
        work_s = self._yardstick.work_s(row.evaluations_left, self._max_rows)
        service_s = self._yardstick.service_s(row.plan, self._max_rows)
        return take_place(own, self._clock, row.submitted, service_s, work_s, row.request.priority)

    def _work_s(self, rows: Iterable[Row]) -> float:
        """Seconds of work that these rows still need."""
        return self._cost.work_s(sum(row.evaluations_left for row in rows), self._max_rows)

    def extend(self, request_id: str, deadline: float | None) -> None:
        """Lets a request in flight take until this deadline too, `None` for any time: another caller waits for it."""
        with self._changed:
            row = self._in_flight.get(request_id)
            if row is not None:
                row.deadline = max(row.deadline, math.inf if deadline is None else deadline)

    def cancel(self, request_id: str) -> bool:
        """Ends a request with `CancelledError`, at once; false where none of this id is in flight."""
        with self._changed:
            row = self._in_flight.get(request_id)
        return row is not None and self._answer(row, CancelledError("the request was cancelled"))

    def progress(self, request_id: str, preview: bool = True) -> RequestProgress | None:
        """Progress of a request, or `None` if none of this id is in flight."""
        with self._changed:
            row = self._in_flight.get(request_id)
        if row is None:
            return None
        step = row.made
        picture = self._batch.preview(row) if preview else None
        if picture is None and preview and row.request.low_res is not None:
            picture = to_uint8(row.request.low_res)
        return RequestProgress(step, len(row.plan), picture)

    def status(self) -> Status:
        """A snapshot."""
        with self._changed:
            rows = self._in_flight.values()
            active = sum(row.active for row in rows)
            waiting = sum(row.started is None for row in rows)
            return Status(
                active=active,
                waiting=waiting,
                paused=len(rows) - active - waiting,
                loop_age_s=time.monotonic() - self._beat,
                step_s=self._step_s,
                steps=self._steps,
                backlog_s=self._work_s(rows),
                draining=self._draining or self._closing,
            )

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
            self._answer(row, StoppedError("the server shut down before the request was done"))
        self._thread.join(IDLE_BEAT_S)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while self._await_work():
            try:
                self._expire()
                waited_s = self._acquire_lock()
                rows = self._choose()
                left = self._advance(rows, waited_s) if rows else self._finish()
            except Exception as error:  # whatever it is, callers must hear of it, and the next request must be served
                logger.exception("the scheduler failed; all that it had begun fails")
                self._enqueued = None
                self._batch.clear()
                left = [(row, _failure(row, error)) for row in self._rows() if row.started is not None]
            for row, outcome in left:
                self._answer(row, outcome)
        self._compute_lock.close()
        self._batch.close()

    def _await_work(self) -> bool:
        with self._changed:
            while not (self._in_flight or self._closing):
                self._compute_lock.release()
                self._beat = time.monotonic()
                self._changed.wait(IDLE_BEAT_S)
            self._beat = time.monotonic()
            return bool(self._in_flight)

    def _expire(self) -> None:
        now = time.monotonic()
        for row in self._rows():
            if row.deadline < now:
                self._answer(row, DeadlineError(f"the deadline passed at step {row.step} of {len(row.plan)}"))

    def _acquire_lock(self) -> float:
        """Waits until this stage may compute; returns the seconds waited."""
        start = time.perf_counter()
        self._compute_lock.acquire(self._claim)
        return time.perf_counter() - start

    def _claim(self) -> Claim:
        """Claim of the best row for the compute lock; evaluated while the loop waits, which also shows liveness."""
        with self._changed:
            self._beat = now = time.monotonic()
            row = best(self._unfinished(), now)
            if row is None:
                return NOTHING
            return Claim(urgency(row, now), row.evaluations_left * self._cost.step_s(1))

    def _unfinished(self) -> list[Row]:
        """The rows in flight that need a further step."""
        return [row for row in self._in_flight.values() if not row.finishing]

    def _choose(self) -> list[Row]:
        """The rows of the next step, as the policy says."""
        with self._changed:
            now = time.monotonic()
            enough = self._cost.enough(2 * self._max_rows)
            chosen = choose(self._unfinished(), self._max_rows, enough, self.engine.max_batch, now)
            for row in self._in_flight.values():
                row.active = False
            for row in chosen:
                row.active = True
                row.started = now if row.started is None else row.started
                self._clock = max(self._clock, row.place.start)
        return chosen

    def _advance(self, rows: Sequence[Row], waited_s: float) -> Left:
        """Enqueues a step of these rows, and reads the result of the one before; on the CPU of this one.

        Where that raises, each row tries it once more, alone. So only the guilty ones fail, and those only where it was
        not for lack of memory or the like.

        Returns:
            The rows that are done or have failed.
        """
        try:
            step = self._enqueue(rows)
        except Exception as error:
            for row in rows:
                why = type(error).__name__
                logger.warning("request %r tries step %d again, alone: it failed (%s)", row.request.id, row.step, why)
            left = self._finish()
            for row in rows:
                left += [] if row.answered else self._try_alone(row)
            return left
        before, self._enqueued = self._enqueued, step
        left = [] if before is None else self._collect(before, waited_s)
        return left if self.engine.arrays.ahead else left + self._finish(waited_s)

    def _try_alone(self, row: Row) -> Left:
        try:
            return self._collect(self._enqueue([row]), 0.0)
        except Exception as error:
            logger.exception("request %r failed at step %d", row.request.id, row.step)
            return [(row, _failure(row, error))]

    def _enqueue(self, rows: Sequence[Row]) -> Step:
        self._beat = time.monotonic()
        self.engine.arrays.use()
        self._step_s = self._cost.step_s(sum(row.next_evaluations for row in rows))
        self._batch.select(rows)
        return self._batch.step(self._compute_lock.yield_rest)

    def _finish(self, waited_s: float = 0.0) -> Left:
        """Reads the result of what is enqueued."""
        step, self._enqueued = self._enqueued, None
        return [] if step is None else self._collect(step, waited_s)

    def _collect(self, step: Step, waited_s: float) -> Left:
        left = self._batch.collect(step)
        self._steps += 1
        self._cost.observe(step.evaluations, step.timer.seconds(), waited_s)
        self._observer.stepped(step.rows, step.evaluations, step.engine.seconds())
        return left

    def _rows(self) -> list[Row]:
        with self._changed:
            return list(self._in_flight.values())

    def _answer(self, row: Row, outcome: Sample | Id3pmError) -> bool:
        """Calls a row's `on_done` once; the lock is free meanwhile."""
        with self._changed:
            if row.answered:
                return False
            row.answered = True
            if isinstance(outcome, Sample):
                self._clock = max(self._clock, row.place.end)
            del self._in_flight[row.request.id]
        self._batch.noise.drop(row)
        try:
            self._observer.ended(row, outcome)
            row.on_done(outcome)
        except Exception:
            logger.exception("the receiver of a result failed")
        return True


def _failure(row: Row, error: Exception) -> EngineError:
    """An error for the caller of a row, without internals; every row needs its own, for it is raised elsewhere."""
    reason = str(error) if isinstance(error, Id3pmError) else type(error).__name__
    return EngineError(f"the engine failed at step {row.step} of {len(row.plan)}: {reason}")
