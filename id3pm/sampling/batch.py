"""The rows that are being sampled, stacked, and one step of all of them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from id3pm.diffusion.guidance import null_attributes, null_identity, take_rows
from id3pm.diffusion.noise import noise
from id3pm.diffusion.samplers import StepPlan, gather, update
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, FloatArray, input_shapes
from id3pm.errors import EngineError, Id3pmError
from id3pm.sampling.request import Sample, SampleRequest

OnDone = Callable[[Sample | Id3pmError], None]


class Place(NamedTuple):
    """A place in the queue of all callers, on a virtual clock that counts work; see `id3pm.sampling.policy`.

    Attributes:
        due: Earlier ones go first.
        start: Where the caller's earlier work ends, or the clock of the queue if that is later.
        end: Where the row's own work ends.
        overdue: Monotonic seconds after which it precedes all places that are not overdue.
    """

    due: float
    start: float
    end: float
    overdue: float


@dataclasses.dataclass(eq=False, kw_only=True)
class Row:
    """One request on its way through a scheduler.

    Attributes:
        request: The validated request.
        plan: Its steps.
        on_done: Takes the result, exactly once.
        submitted: Monotonic seconds of its arrival.
        due: Monotonic seconds at which it should be done; see `id3pm.sampling.policy`.
        place: In the queue of all callers; the policy exchanges the places of one caller's rows.
        deadline: Monotonic seconds after which the result is not wanted.
        order: Number of its arrival.
        started: Monotonic seconds of its first step, or `None` before it.
        active: It takes part in the current step. A row that has started and is not active is paused.
        step: Steps made.
        evaluations_left: Rows that the U-Net still has to compute for it.
        x: x_t while it is paused, float32 [3, S, S]; `None` before its first step and while the batch holds it.
        x0: The latest prediction of the finished image, float32 [3, S, S], never written to again; `None` before one.
        answered: `on_done` has been or is being called.
    """

    request: SampleRequest
    plan: StepPlan
    on_done: OnDone
    submitted: float
    due: float = math.inf
    place: Place = Place(0.0, 0.0, 0.0, math.inf)
    deadline: float = math.inf
    order: int = 0
    started: float | None = None
    active: bool = False
    step: int = 0
    evaluations_left: int = dataclasses.field(init=False)
    x: FloatArray | None = None
    x0: FloatArray | None = None
    answered: bool = False

    def __post_init__(self) -> None:
        self.evaluations_left = self.plan.evaluations

    @property
    def next_evaluations(self) -> int:
        """Rows that the U-Net computes for its next step: two where that is guided."""
        return 2 if self.plan.guided[self.step] else 1


class RowBatch:
    """The active rows of one engine, at any mixture of time steps, samplers and guidance. One thread owns it.

    Its arrays are replaced at every step and never written to, so a row's `x0` may be read from any thread. A method
    that raises leaves every row as it was, so that its step can be tried again, in this batch or in another.
    """

    def __init__(self, engine: Engine, stage: int) -> None:
        self._engine = engine
        self._stage = stage
        self._shape = input_shapes(engine.config, 0)["x"][1:]
        self._helper = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"noise-{stage}")
        self.clear()

    def clear(self) -> None:
        """Drops all rows."""
        empty = {name: np.empty(s, np.float32) for name, s in input_shapes(self._engine.config, 0).items()}
        del empty["timesteps"]
        self._x = self._x0 = empty.pop("x")
        self._conditions = empty
        self.rows: list[Row] = []

    def select(self, rows: Sequence[Row]) -> None:
        """Makes these the active rows. Others that were active pause, and go on from there when selected again."""
        wanted = {id(row) for row in rows}
        for row, x, x0 in zip(self.rows, self._x, self._x0, strict=True):
            if id(row) not in wanted and not row.answered:  # copies: a view would keep the whole stack in memory
                row.x, row.x0 = x.copy(), (x0.copy() if row.step else None)
        self._keep([id(row) in wanted for row in self.rows])
        active = {id(row) for row in self.rows}
        self.add(*(row for row in rows if id(row) not in active))

    def add(self, *rows: Row) -> None:
        """Adds rows: new ones begin with their noise, draw 0 of the seed contract; paused ones go on."""
        if not rows:
            return
        x = [noise(r.request.seed, self._stage, 0, self._shape) if r.x is None else r.x for r in rows]
        # before the first step there is no x0; its placeholder in the stack is not read
        x0 = [start if row.x0 is None else row.x0 for row, start in zip(rows, x, strict=True)]
        conditions = {
            name: np.concatenate([stacked, np.stack([getattr(row.request, name) for row in rows])])
            for name, stacked in self._conditions.items()
        }
        self._x, self._x0 = np.concatenate([self._x, np.stack(x)]), np.concatenate([self._x0, np.stack(x0)])
        self._conditions = conditions
        self.rows.extend(rows)
        for row in rows:
            row.x = None

    def _keep(self, kept: Sequence[bool]) -> None:
        """Drops the rows whose flag is false."""
        if all(kept):
            return
        indices = np.flatnonzero(kept)
        self._x, self._x0 = self._x[indices], self._x0[indices]
        self._conditions = {name: stacked[indices] for name, stacked in self._conditions.items()}
        self.rows = [self.rows[index] for index in indices]

    def step(self, computed: Callable[[], None] = lambda: None) -> list[tuple[Row, Sample | EngineError]]:
        """One step of every row: one U-Net evaluation of all of them, and of the guided ones without their condition.

        Args:
            computed: Called when the engine is done with it.

        Returns:
            The rows that have left the batch: finished, or failed because their output was not finite.
        """
        if not self.rows:
            return []
        coefficients = gather([row.plan for row in self.rows], [row.step for row in self.rows])
        guided, noisy = coefficients.guided_rows, coefficients.noise_rows
        draws = self._helper.submit(self._draw, self._at(noisy))  # while the engine runs without the interpreter lock
        output = self._evaluate(self._inputs(coefficients.timestep, guided))
        computed()
        count = len(self.rows)
        finite = np.isfinite(output).reshape(len(output), -1).all(axis=1)
        finite_rows = finite[:count].copy()
        finite_rows[guided] &= finite[count:]
        if not finite.all():  # such rows fail below; until then their numbers must not raise warnings
            output = np.where(np.isfinite(output), output, np.float32(0.0))
        self._x, self._x0 = update(
            self._x,
            output[:count],
            coefficients,
            unconditional=output[count:] if len(guided) else None,
            x0_prev=self._x0,
            noise=draws.result(),
            low_res=self._conditions.get("low_res"),
        )
        for row, x0 in zip(self.rows, self._x0, strict=True):
            row.step, row.x0, row.evaluations_left = row.step + 1, x0, row.evaluations_left - 1
        for row in self._at(guided):
            row.evaluations_left -= 1
        return self._leave(finite_rows.tolist())

    def _at(self, indices: NDArray[np.intp]) -> list[Row]:
        return [self.rows[index] for index in indices]

    def _draw(self, rows: Sequence[Row]) -> FloatArray | None:
        """The noise that these rows' next step adds, [K, 3, S, S]; `None` for no rows."""
        if not rows:
            return None
        draws = np.empty((len(rows), *self._shape), dtype=np.float32)
        for row, out in zip(rows, draws, strict=True):
            noise(row.request.seed, self._stage, row.step + 1, self._shape, out=out)
        return draws

    def _inputs(self, timesteps: FloatArray, guided: NDArray[np.intp]) -> EngineInputs:
        """The conditional rows, and behind them the guided ones again with null conditions."""
        stacked = {"x": self._x, "timesteps": timesteps, **self._conditions}
        if not len(guided):
            return stacked
        repeated = {name: take_rows(array, guided) for name, array in stacked.items()}
        if "identity" in repeated:
            repeated["identity"] = null_identity(*repeated["identity"].shape)
        if "attributes" in repeated:
            repeated["attributes"] = null_attributes(*repeated["attributes"].shape)
        return {name: np.concatenate([stacked[name], repeated[name]]) for name in stacked}

    def _evaluate(self, inputs: EngineInputs) -> FloatArray:
        """The U-Net's output for all rows, in as few engine calls as its largest batch allows."""
        size = self._engine.max_batch
        parts = [
            self._engine.run({name: array[start : start + size] for name, array in inputs.items()})
            for start in range(0, len(inputs["x"]), size)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _leave(self, finite: Sequence[bool]) -> list[tuple[Row, Sample | EngineError]]:
        now = time.monotonic()
        left: list[tuple[Row, Sample | EngineError]] = []
        for row, x, is_finite in zip(self.rows, self._x, finite, strict=True):
            if not is_finite:
                left.append((row, EngineError(f"the U-Net's output at step {row.step} is not finite")))
            elif row.step == len(row.plan):
                left.append((row, _sample(row, x, now)))
        gone = {id(row) for row, _ in left}
        self._keep([id(row) not in gone for row in self.rows])
        return left


def _sample(row: Row, image: FloatArray, now: float) -> Sample:
    started = row.submitted if row.started is None else row.started
    return Sample(
        image=image.copy(),  # a view would keep the whole stack in memory as long as the image
        steps=row.step,
        evaluations=row.plan.evaluations,
        waited_s=started - row.submitted,
        sampled_s=now - started,
    )
