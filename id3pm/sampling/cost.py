"""Cost model: seconds of a step as a function of its rows, learned from the steps that are made."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from id3pm.diffusion.samplers import StepPlan
from id3pm.engines.base import Engine
from id3pm.engines.inputs import input_shapes

EFFICIENT = 0.9  # of the throughput of the largest batch
FIRST_GUESS_S = 0.1  # per row, until something has been measured
_GAIN = 0.1  # weight of a measurement in the mean of its row count
_FORGETTING = 0.98  # decay per measurement with another row count
_LEAST_WEIGHT = 1e-3  # old measurements still define the line if there are no others
_OUTLIER = 3.0  # a step counts for at most this many times its expected duration
_LONGEST_WAIT = 5.0  # for the lock, in steps of the same stage; longer waits are outliers
_WARM_UP_S = 5.0  # longest full batch that is measured at start


@dataclasses.dataclass
class _Kind:
    """The steps of one number of rows: mean duration, steps seen, and how recent they are, 1 to 0."""

    seconds: float
    count: int = 1
    weight: float = 1.0


class CostModel:
    """`a + b rows` seconds per step: a weighted least-squares line through the mean duration of each number of rows.

    Recent row counts have the most weight. One thread may add measurements while others read.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, _Kind] = {}
        self._line = (0.0, FIRST_GUESS_S)
        self._waiting = 0.0

    def observe(self, rows: int, seconds: float, waited_s: float = 0.0) -> None:
        """Learns from a step that evaluated `rows` rows. An outlier changes little; a lasting change is learned soon.

        Args:
            rows: Rows of the U-Net's batch.
            seconds: How long the step took.
            waited_s: How long it waited for the compute lock before.
        """
        self._waiting += _GAIN * (min(waited_s / max(seconds, 1e-9), _LONGEST_WAIT) - self._waiting)
        kind = self._kinds.get(rows)
        if kind is None:
            limit = _OUTLIER * self.step_s(rows) if len(self._kinds) > 1 else seconds
            kind = self._kinds[rows] = _Kind(min(seconds, limit))
        else:
            kind.count += 1
            gain = max(_GAIN, 1 / kind.count)
            kind.seconds += gain * (min(seconds, _OUTLIER * kind.seconds) - kind.seconds)
        for other in self._kinds.values():
            other.weight = max(_LEAST_WEIGHT, other.weight * _FORGETTING)
        kind.weight = 1.0
        self._line = self._fitted()

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return bool(self._kinds)

    def step_s(self, rows: float) -> float:
        """Expected seconds of a step that evaluates so many rows."""
        a, b = self._line
        return a + b * rows

    def enough(self, most: int) -> int:
        """The fewest rows at which a step gets `EFFICIENT` of the throughput that it has with `most` rows.

        On a GPU that is most of them; on a CPU, where a row costs the same in any batch, only a few. A larger step
        would make all rows wait longer and finish none sooner. It is all of them until two row counts are known.
        """
        if len(self._kinds) < 2:
            return most
        a, b = self._line
        slack = (b + a / most) / EFFICIENT - b  # a row's share of `a` may be so much
        return max(1, min(most, math.ceil(a / slack - 1e-9))) if slack > 0.0 else most

    def service_s(self, steps: StepPlan, company: int = 1) -> float:
        """Expected seconds of all steps of an image, sampled without a pause in a batch of `company` similar rows."""
        guided = steps.evaluations - len(steps)
        return (len(steps) - guided) * self.step_s(company) + guided * self.step_s(2 * company)

    def work_s(self, evaluations: int, batch: int) -> float:
        """Expected seconds for so many evaluations of one row in batches of `batch`, with the waits for the lock."""
        return evaluations * self.step_s(batch) / batch * (1.0 + self._waiting)

    def _fitted(self) -> tuple[float, float]:
        """Least squares of the relative errors, with neither part of the cost negative."""
        total = n_sum = nn_sum = t_sum = nt_sum = 0.0
        for rows, kind in self._kinds.items():
            weight = kind.weight / max(kind.seconds, 1e-9) ** 2
            total += weight
            n_sum += weight * rows
            nn_sum += weight * rows * rows
            t_sum += weight * kind.seconds
            nt_sum += weight * rows * kind.seconds
        through_origin = (0.0, nt_sum / nn_sum)
        if len(self._kinds) == 1:
            return through_origin
        b = (total * nt_sum - n_sum * t_sum) / (total * nn_sum - n_sum * n_sum)
        a = (t_sum - b * n_sum) / total
        if a < 0.0:
            return through_origin
        return (t_sum / total, 0.0) if b < 0.0 else (a, b)


def warm_up(engine: Engine, max_rows: int) -> CostModel:
    """A cost model initialised from two engine calls: one row, and a full batch.

    The first calls also make the runtime allocate and compile what it needs.

    Args:
        engine: An engine that is not in use yet.
        max_rows: Most rows that will be sampled at a time.
    """
    cost = CostModel()
    _call_s(engine, 1)  # the first call takes longer than any other
    alone = _call_s(engine, 1)
    cost.observe(1, alone)
    full = min(max_rows, engine.max_batch)
    if full > 1 and full * alone < _WARM_UP_S:
        cost.observe(full, _call_s(engine, full))
    return cost


def _call_s(engine: Engine, rows: int) -> float:
    arrays, shapes = engine.arrays, input_shapes(engine.config, rows)
    arrays.use()
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    inputs = {name: arrays.from_host(array) for name, array in zeros.items()}
    timer = arrays.timer()
    engine.run(inputs)
    timer.stop()
    return timer.seconds()
