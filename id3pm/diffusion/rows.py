"""The coefficients of one step of a mixed batch, on the device of its rows: one copy for all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_api_compat import device, is_numpy_array
from numpy.typing import NDArray

from id3pm.diffusion.coefficients import IndexArray, RowCoefficients
from id3pm.formats.array_api import array_namespace

Array = Any  # numpy.ndarray, torch.Tensor, cupy.ndarray, or any other of the array API standard
Copy = Callable[[NDArray[np.float32]], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of a batch, ascending and distinct.

    Attributes:
        rows: Their numbers, on the host, [K].
        total: Rows of the batch.
        index: Their numbers on the device of the batch, [K]; not read where the subset is the whole batch.
        merge: For every row of the batch its place in the batch followed by the subset, [N]; as `index`.
    """

    rows: IndexArray
    total: int
    index: Array
    merge: Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def everything(self) -> bool:
        """Whether this is the whole batch."""
        return len(self.rows) == self.total

    def take(self, array: Array) -> Array:
        """These rows of `array`; the array itself, not a copy, where that is all of them."""
        return array if self.everything else array_namespace(array).take(array, self.index, axis=0)

    def put(self, array: Array, values: Array) -> Array:
        """A copy of `array` with `values` in these rows; `values` itself where that is all of them."""
        if self.everything:
            return values
        if is_numpy_array(array):
            copy = array.copy()
            copy[self.rows] = values
            return copy
        xp = array_namespace(array)  # the standard has no assignment by index
        return xp.take(xp.concat([array, values]), self.merge, axis=0)

    def add(self, array: Array, values: Array) -> Array:
        """`array` with `values` added to these rows alone; `array` is written to, or is a new one."""
        if self.everything:
            array += values
            return array
        if is_numpy_array(array):
            array[self.rows] += values
            return array
        return self.put(array, self.take(array) + values)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Thresholds:
    """Where the quantiles of dynamic thresholding lie in the sorted magnitudes of a row of `elements` numbers.

    The quantile is `weight` of the way from element `lower` to element `upper`, as `numpy.quantile` has it.

    Attributes:
        subset: The rows that are thresholded.
        places: (lower, upper, weight) of each, on the host.
        lower: Integers [K], on the device of the batch.
        upper: The same.
        weight: float32 [K, 1].
    """

    subset: Subset
    places: Sequence[tuple[int, int, float]]
    lower: Array
    upper: Array
    weight: Array


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """What `samplers.update` reads: factors as [N, 1, 1, 1], or [K, 1, 1, 1] for the K rows of a subset, `None` for 0.

    Attributes:
        timestep: float32 [N].
        a: Factor of x in x0, of all rows.
        b: Factor of the output in x0, of all rows.
        c_x: Of all rows.
        c_x0: Of all rows.
        guided: The rows that are guided; `guidance_scale` is theirs.
        multistep: The rows that use the previous x0; `c_prev` is theirs.
        noisy: The rows that noise is added to; `std` is theirs.
        learned: The rows among them whose variance is learned; `min_log_variance`, `max_log_variance` are theirs.
        learned_noisy: The same rows by their numbers in `noisy`.
        consistent: The rows that must agree with their small image; `consistency` is theirs.
        thresholds: Of dynamic thresholding; `None` where no row has one.
    """

    timestep: Array
    a: Array
    b: Array
    c_x: Array
    c_x0: Array
    guided: Subset
    guidance_scale: Array
    multistep: Subset
    c_prev: Array
    noisy: Subset
    std: Array
    learned: Subset
    learned_noisy: Subset
    min_log_variance: Array
    max_log_variance: Array
    consistent: Subset
    consistency: Array
    thresholds: Thresholds | None


_OF_ALL_ROWS = {"a": "x0_from_x", "b": "x0_from_output", "c_x": "c_x", "c_x0": "c_x0"}
"""Factors of `Columns` that all rows have, and their names in `RowCoefficients`."""
_OF_A_SUBSET = {
    "guidance_scale": "guided",
    "c_prev": "multistep",
    "std": "noisy",
    "min_log_variance": "learned",
    "max_log_variance": "learned",
    "consistency": "consistent",
}
"""Factors that some rows have, and which."""


class _Pack:
    """Rows of float32 numbers, which become one array on the device. Integers up to 2^24 are exact in it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: list[NDArray[Any]] = []
        self._packed: Array = None
        self._columns: Array = None

    def add(self, values: NDArray[Any]) -> int:
        self._lines.append(values)
        return len(self._lines) - 1

    def copy(self, copy: Copy) -> None:
        packed = np.zeros((len(self._lines), self._width), np.float32)
        for line, values in zip(packed, self._lines, strict=True):
            line[: len(values)] = values
        self._packed = copy(packed)
        self._columns = array_namespace(self._packed).reshape(self._packed, (*packed.shape, 1, 1, 1))

    def values(self, line: int) -> Array:
        return self._packed[line, : len(self._lines[line])]

    def column(self, line: int) -> Array:
        """[K, 1, 1, 1]."""
        return self._columns[line, : len(self._lines[line]), ...]

    def integers(self, line: int) -> Array:
        values = self.values(line)
        if is_numpy_array(values):
            return self._lines[line]
        xp = array_namespace(values)
        return xp.astype(values, xp.int64)


def columns(rows: RowCoefficients, elements: int, copy: Copy) -> Columns:
    """The coefficients of a step on the device of its rows.

    Args:
        rows: The coefficients on the host.
        elements: Numbers of one image.
        copy: Copies float32 [L, N] to the device; called once.
    """
    count = len(rows.timestep)
    pack = _Pack(max(count, 1))
    subsets = {
        "guided": (rows.guided_rows, count),
        "multistep": (rows.multistep_rows, count),
        "noisy": (rows.noise_rows, count),
        "learned": (rows.learned_rows, count),
        "learned_noisy": (np.flatnonzero(rows.learned_variance[rows.noise_rows]), len(rows.noise_rows)),
        "consistent": (rows.consistent_rows, count),
        "thresholded": (rows.thresholded_rows, count),
    }
    timestep = pack.add(rows.timestep)
    lines = {name: pack.add(getattr(rows, of_rows)) for name, of_rows in _OF_ALL_ROWS.items()}
    lines |= {
        name: pack.add(getattr(rows, name)[subsets[subset][0]])
        for name, subset in _OF_A_SUBSET.items()
        if len(subsets[subset][0])
    }
    parts = {name: _add_subset(pack, some, total) for name, (some, total) in subsets.items()}
    places = _places(rows.percentile[rows.thresholded_rows], elements)
    place_lines = [pack.add(part) for part in places] if len(rows.thresholded_rows) else []
    pack.copy(copy)
    made = {
        name: Subset(some, total, *(_whole(pack, line) for line in parts[name]))
        for name, (some, total) in subsets.items()
    }
    thresholded = made.pop("thresholded")
    thresholds = None
    if place_lines:
        lower, upper = (pack.integers(line) for line in place_lines[:2])
        on_host = list(zip(*(part.tolist() for part in places), strict=True))
        weight = pack.column(place_lines[2])[:, :, 0, 0]
        thresholds = Thresholds(subset=thresholded, places=on_host, lower=lower, upper=upper, weight=weight)
    factors: dict[str, Array] = dict.fromkeys(_OF_A_SUBSET) | {name: pack.column(line) for name, line in lines.items()}
    return Columns(timestep=pack.values(timestep), thresholds=thresholds, **made, **factors)


def _add_subset(pack: _Pack, rows: IndexArray, total: int) -> tuple[int | None, int | None]:
    """The lines of a subset's `index` and `merge`; none where nothing reads them."""
    if len(rows) in (0, total):
        return None, None
    merge = np.arange(total)
    merge[rows] = total + np.arange(len(rows))
    return pack.add(rows), pack.add(merge)


def _whole(pack: _Pack, line: int | None) -> Array:
    return None if line is None else pack.integers(line)


def _places(fractions: NDArray[np.float64], count: int) -> tuple[IndexArray, IndexArray, NDArray[np.float64]]:
    """Where these quantiles of `count` sorted numbers lie: lower and upper element, and the weight of the upper."""
    position = fractions * (count - 1)
    lower = np.floor(position)
    places = lower.astype(np.intp)
    return places, np.minimum(places + 1, count - 1), position - lower


def columns_beside(rows: RowCoefficients, x: Array) -> Columns:
    """As `columns`, on the device of `x` [N, C, H, W]."""
    xp, place = array_namespace(x), device(x)
    elements = math.prod(x.shape[1:])
    if is_numpy_array(x):
        return columns(rows, elements, lambda packed: packed)
    return columns(rows, elements, lambda packed: xp.asarray(packed, device=place))
