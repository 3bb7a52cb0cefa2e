"""The rows that are being sampled, stacked where the engine computes, and one step of all of them."""

from __future__ import annotations

import dataclasses
import math
import operator
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.diffusion.guidance import null_attributes, null_identity
from id3pm.diffusion.rows import Columns, Subset, columns
from id3pm.diffusion.samplers import gather, update
from id3pm.engines.arrays import Array, Timer
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, FloatArray, input_shapes
from id3pm.errors import EngineError
from id3pm.formats.array_api import array_namespace
from id3pm.formats.images import to_uint8
from id3pm.sampling.noise_ahead import STEPS_AHEAD, NoiseAhead
from id3pm.sampling.request import Sample
from id3pm.sampling.row import Row

Left = list[tuple[Row, Sample | EngineError]]


@dataclasses.dataclass(eq=False)
class Step:
    """A step that has been enqueued.

    Attributes:
        rows: Its rows; their `step` counts it.
        number: Of each row, which of its steps this is, 0 for the first.
        x0: The predicted images of all rows.
        finite: Waits for one flag per evaluation: the U-Net's output was finite.
        guided: Which rows have a second evaluation.
        images: Waits for the finished images, uint8 [K, S, S, 3]; of the rows that have made their last step.
        timer: How long the step took.
        engine: How long the U-Net took, a part of that.
        evaluations: Rows that the U-Net evaluated.
        kept: Host memory from which copies to the device may still be under way.
    """

    rows: list[Row]
    number: list[int]
    x0: Array
    finite: Callable[[], NDArray[np.bool_]]
    guided: NDArray[np.intp]
    images: Callable[[], NDArray[np.uint8]] | None
    timer: Timer
    engine: Timer
    evaluations: int
    kept: list[FloatArray]


class RowBatch:
    """The active rows of one engine, at any mixture of timesteps, samplers and guidance. One thread owns it.

    x_t, x0 and conditions stay on the engine's device. A step moves the rows' coefficients and their noise there, and
    one flag per evaluation back. Stacks are replaced at every step and never written to, so a row's `x0` may be read
    from any thread. A method that raises leaves every row as it was, so that its step can be tried again, in this
    company or in another.
    """

    def __init__(self, engine: Engine, stage: int) -> None:
        self._engine = engine
        self._arrays = engine.arrays
        shapes = {name: shape[1:] for name, shape in input_shapes(engine.config, 0).items()}
        self._shape = shapes.pop("x")
        del shapes["timesteps"]
        self._condition_shapes = shapes
        steps = STEPS_AHEAD if self._arrays.ahead else 1  # on a CPU the engine needs the cores and the memory
        self.noise = NoiseAhead(stage, self._shape, self._arrays.host, self._arrays.noise_threads, steps=steps)
        self._nothing: dict[str, Array] = {}  # null conditions, of as many rows as have been needed
        self.clear()

    def clear(self) -> None:
        """Drops all rows."""
        self._x: Array = None
        self._x0: Array = None
        self._conditions: dict[str, Array] = {}
        self.rows: list[Row] = []

    def close(self) -> None:
        """Ends the threads that draw noise."""
        self.noise.close()

    def select(self, rows: Sequence[Row]) -> None:
        """Makes these the active rows. Others that were active pause, and go on from there when selected again."""
        if len(rows) == len(self.rows) and all(map(operator.is_, rows, self.rows)):
            return
        wanted = {id(row) for row in rows}
        for place, row in enumerate(self.rows):
            if id(row) not in wanted and not row.answered:  # copies: a view would keep the whole stack in memory
                xp = array_namespace(self._x)
                x, x0 = (xp.asarray(stack[place, ...], copy=True) for stack in (self._x, self._x0))
                row.paused = (x, x0)
        self._keep([id(row) in wanted for row in self.rows])
        active = {id(row) for row in self.rows}
        self.add(*(row for row in rows if id(row) not in active))

    def add(self, *rows: Row) -> None:
        """Adds rows: new ones begin with their noise, draw 0 of the seed contract; paused ones go on."""
        if not rows:
            return
        new = [row for row in rows if row.paused is None]
        drawn = dict(zip(new, self._copied(self.noise.take(new, [0] * len(new))), strict=True))
        # before the first step there is no x0, and nothing reads what holds its place in the stack
        states = [(drawn[row], drawn[row]) if row.paused is None else row.paused for row in rows]
        xp = array_namespace(states[0][0])
        conditions = {
            name: self._to_device(np.stack([getattr(row.request, name) for row in rows]))
            for name in self._condition_shapes
        }
        x, x0 = (xp.stack([state[part] for state in states]) for part in range(2))
        if self.rows:
            x, x0 = xp.concat([self._x, x]), xp.concat([self._x0, x0])
            conditions = {name: xp.concat([self._conditions[name], array]) for name, array in conditions.items()}
        self._x, self._x0, self._conditions = x, x0, conditions
        self.rows.extend(rows)
        for row in rows:
            row.paused, row.begun = None, True

    def _copied(self, arrays: Sequence[FloatArray]) -> list[Array]:
        return [self._arrays.from_host(array) for array in arrays]

    def _keep(self, kept: Sequence[bool]) -> None:
        """Drops the rows whose flag is false."""
        if all(kept):
            return
        self.rows = [row for row, stays in zip(self.rows, kept, strict=True) if stays]
        if not self.rows:
            self.clear()
            return
        xp = array_namespace(self._x)
        # slices of runs: the standard's index arrays would be one more copy to the device
        edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]])))
        runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))

        def chosen(stack: Array) -> Array:
            return xp.concat([stack[start:end, ...] for start, end in runs])

        self._x, self._x0 = chosen(self._x), chosen(self._x0)
        self._conditions = {name: chosen(stack) for name, stack in self._conditions.items()}

    def step(self, computed: Callable[[], None] = lambda: None) -> Step:
        """Enqueues one step of every row: one U-Net evaluation of each, and of the guided ones without condition.

        Rows that this was the last step of leave the batch.

        Args:
            computed: Called when the engine is done with it, or has it enqueued.

        Raises:
            ValueError: There are no rows.
        """
        if not self.rows:
            raise ValueError("no rows: select some first")
        timer = self._arrays.timer()
        rows, number = list(self.rows), [row.step for row in self.rows]
        coefficients = gather([row.plan for row in rows], number)
        packed: list[FloatArray] = []
        of = columns(coefficients, math.prod(self._shape), lambda array: self._to_device(array, packed))
        inputs = self._inputs(of)
        engine = self._arrays.timer()
        output = self._evaluate(inputs)
        engine.stop()
        computed()
        count, xp = len(rows), array_namespace(output)
        finite = xp.all(xp.reshape(xp.isfinite(output), (output.shape[0], -1)), axis=1)
        some = coefficients.noise_rows
        draws = self.noise.take([rows[row] for row in some], [number[row] + 1 for row in some])
        with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite fail in `collect`
            x, x0 = update(
                self._x,
                output[:count, ...],
                of,
                unconditional=output[count:, ...] if len(of.guided) else None,
                x0_prev=self._x0,
                noise=xp.stack(self._copied(draws)) if draws else None,
                low_res=self._conditions.get("low_res"),
            )
        last = [place for place, row in enumerate(rows) if number[place] + 1 == row.count]
        images = self._arrays.to_host(to_uint8(xp.stack([x[place, ...] for place in last]))) if last else None
        flags = self._arrays.to_host(finite)
        timer.stop()
        self._x, self._x0 = x, x0
        for row, guided in zip(rows, coefficients.guided.tolist(), strict=True):
            row.step, row.evaluations_left = row.step + 1, row.evaluations_left - 1 - int(guided)
        if last:
            self._keep([not row.finishing for row in rows])
        self.noise.prefetch(self.rows)
        evaluations = count + len(of.guided)
        guided_rows = coefficients.guided_rows
        return Step(rows, number, x0, flags, guided_rows, images, timer, engine, evaluations, [*packed, *draws])

    def collect(self, step: Step) -> Left:
        """Waits for a step.

        Returns:
            The rows that have left: finished, or failed because their output was not finite.
        """
        count = len(step.rows)
        flags = step.finite()
        finite = flags[:count].copy()
        finite[step.guided] &= flags[count:]
        images = iter(() if step.images is None else step.images())
        step.kept.clear()
        now = time.monotonic()
        left: Left = []
        fine = finite.tolist()
        for place, row in enumerate(step.rows):
            number = step.number[place] + 1
            row.made, row.latest = number, (step.x0, place)
            image = next(images) if number == row.count else None
            if not fine[place]:
                left.append((row, EngineError(f"the U-Net's output at step {number} is not finite")))
            elif image is not None:
                left.append((row, _sample(row, image, now)))
        failed = {id(row) for row, outcome in left if isinstance(outcome, EngineError)}
        if failed:
            self._keep([id(row) not in failed for row in self.rows])
        return left

    def preview(self, row: Row) -> NDArray[np.uint8] | None:
        """The image that step `made` predicted, uint8 [S, S, 3]; `None` before one. From any thread."""
        x0 = row.x0
        if x0 is None:
            return None
        with self._arrays.reading():  # `collect` has waited for that step, not for the one under way
            return self._arrays.to_host(to_uint8(x0))()

    def _to_device(self, array: FloatArray, kept: list[FloatArray] | None = None) -> Array:
        """Copies through the memory that copies fastest; from any other, a copy would wait for the device."""
        fast = self._arrays.host(array.shape)
        fast[...] = array
        if kept is not None:
            kept.append(fast)
        return self._arrays.from_host(fast)

    def _inputs(self, of: Columns) -> EngineInputs:
        """The conditional rows, and behind them the guided ones again with null conditions."""
        stacked = {"x": self._x, "timesteps": of.timestep, **self._conditions}
        if not len(of.guided):
            return stacked
        xp = array_namespace(self._x)
        again = {name: self._without_condition(name, array, of.guided) for name, array in stacked.items()}
        return {name: xp.concat([array, again[name]]) for name, array in stacked.items()}

    def _without_condition(self, name: str, array: Array, guided: Subset) -> Array:
        make = {"identity": null_identity, "attributes": null_attributes}.get(name)
        if make is None:
            return guided.take(array)
        known = self._nothing.get(name)
        if known is None or known.shape[0] < len(guided):
            known = self._nothing[name] = self._to_device(make(len(guided), *self._condition_shapes[name]))
        return known[: len(guided), ...]

    def _evaluate(self, inputs: EngineInputs) -> Array:
        """The U-Net's output for all rows, in as few engine calls as its largest batch allows."""
        size, rows = self._engine.max_batch, inputs["x"].shape[0]
        if rows <= size:
            return self._engine.run(inputs)
        parts = [
            self._engine.run({name: array[start : min(start + size, rows), ...] for name, array in inputs.items()})
            for start in range(0, rows, size)
        ]
        return array_namespace(parts[0]).concat(parts)


def _sample(row: Row, image: NDArray[np.uint8], now: float) -> Sample:
    started = row.submitted if row.started is None else row.started
    return Sample(
        image=image,
        steps=len(row.plan),
        evaluations=row.plan.evaluations,
        waited_s=started - row.submitted,
        sampled_s=now - started,
    )
