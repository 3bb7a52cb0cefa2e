"""The scalars of a sampling step: of every step of one image, and of one step of a mixed batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.diffusion.start import Start

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Coefficients:
    """The scalars of `update`: one per step in a `StepPlan`, one per row in `RowCoefficients`.

    Attributes:
        timestep: Input of the U-Net, float32 (rescaled where the process says so).
        x0_from_x: a in x0 = a x - b output.
        x0_from_output: b in x0 = a x - b output.
        c_x: Factor of x.
        c_x0: Factor of the clipped x0.
        c_prev: Factor of the previous step's clipped x0; 0 where the step does not use it.
        std: Factor of the noise where the variance is not learned.
        min_log_variance: log variance at interpolation -1, where the variance is learned.
        max_log_variance: log variance at interpolation +1, where the variance is learned.
        guidance_scale: s of classifier-free guidance.
        percentile: Of dynamic thresholding, float64; 0 clamps.
        consistency: Share of the difference to the small image that is removed from x0; 0 without a small image.
        guided: The step needs the unconditional eps too: inside the guidance interval, and s is not 1.
        learned_variance: The noise's standard deviation comes from the U-Net's variance channels.
        needs_noise: The step adds noise.
    """

    timestep: Float32Array
    x0_from_x: Float32Array
    x0_from_output: Float32Array
    c_x: Float32Array
    c_x0: Float32Array
    c_prev: Float32Array
    std: Float32Array
    min_log_variance: Float32Array
    max_log_variance: Float32Array
    guidance_scale: Float32Array
    percentile: Float64Array
    consistency: Float32Array
    guided: BoolArray
    learned_variance: BoolArray
    needs_noise: BoolArray


_OTHER_TYPES = {
    "percentile": np.float64,
    "guided": np.bool_,
    "learned_variance": np.bool_,
    "needs_noise": np.bool_,
}
_FIELDS = {
    dtype: [
        field.name for field in dataclasses.fields(Coefficients) if _OTHER_TYPES.get(field.name, np.float32) is dtype
    ]
    for dtype in (np.float32, np.float64, np.bool_)
}
"""The names of all coefficients by their dtype."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StepPlan(Coefficients):
    """Every step of one image, noisiest first: each array of `Coefficients` has one read-only entry per step.

    Attributes:
        start: What the first input has besides noise; `None` for noise alone.
    """

    start: Start | None = None

    def __len__(self) -> int:
        return len(self.timestep)

    @functools.cached_property
    def _tables(self) -> list[NDArray[Any]]:
        """For every dtype the fields that have it, [steps, fields]: a step is a row of each."""
        tables = [np.stack([getattr(self, name) for name in names], axis=1) for names in _FIELDS.values()]
        for table in tables:
            table.setflags(write=False)
        return tables

    def row(self, step: int) -> list[NDArray[Any]]:
        """A step's numbers, in the order of `_FIELDS`."""
        return [table[step] for table in self._tables]

    @functools.cached_property
    def next_evaluations(self) -> tuple[int, ...]:
        """For every step, and after the last, the rows that the U-Net computes for it: two where it is guided."""
        return (*(2 if guided else 1 for guided in self.guided.tolist()), 0)

    @functools.cached_property
    def draws(self) -> tuple[int, ...]:
        """The draws of the seed contract that the image needs, ascending: 0, and k for a k-th step with noise."""
        return (0, *(np.flatnonzero(self.needs_noise) + 1).tolist())

    @property
    def evaluations(self) -> int:
        """Rows that the U-Net computes for one image: one a step, and one more where the step is guided."""
        return len(self) + int(self.guided.sum())

    def at(self, steps: IndexArray) -> RowCoefficients:
        """The coefficients of a batch whose row i takes step `steps[i]` (0 = noisiest) of this plan."""
        names = [field.name for field in dataclasses.fields(RowCoefficients)]
        return RowCoefficients(**{name: getattr(self, name)[steps] for name in names})


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RowCoefficients(Coefficients):
    """The coefficients of one step of a mixed batch: each array has one entry per row, [N]."""

    @functools.cached_property
    def guided_rows(self) -> IndexArray:
        """The rows that need an unconditional evaluation, ascending."""
        return np.flatnonzero(self.guided)

    @functools.cached_property
    def noise_rows(self) -> IndexArray:
        """The rows that need noise, ascending."""
        return np.flatnonzero(self.needs_noise)

    @functools.cached_property
    def learned_rows(self) -> IndexArray:
        """The rows that need noise of a learned variance, ascending."""
        return np.flatnonzero(self.needs_noise & self.learned_variance)

    @functools.cached_property
    def thresholded_rows(self) -> IndexArray:
        """The rows whose x0 is thresholded dynamically, ascending."""
        return np.flatnonzero(self.percentile)

    @functools.cached_property
    def multistep_rows(self) -> IndexArray:
        """The rows that use the previous step's x0, ascending."""
        return np.flatnonzero(self.c_prev)

    @functools.cached_property
    def consistent_rows(self) -> IndexArray:
        """The rows whose x0 must agree with their small image, ascending."""
        return np.flatnonzero(self.consistency)


def gather(plans: Sequence[StepPlan], steps: Sequence[int]) -> RowCoefficients:
    """The coefficients of a mixed batch whose row i takes step `steps[i]` (0 = noisiest) of `plans[i]`."""
    rows = [plan.row(step) for plan, step in zip(plans, steps, strict=True)]
    columns: dict[str, Any] = {}
    for names, kind in zip(_FIELDS.values(), zip(*rows, strict=True), strict=True):
        columns.update(zip(names, np.array(kind).T, strict=True))
    return RowCoefficients(**columns)
