"""Statistics of what a sheet measures, and the texts and pictures of its captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from id3pm.evaluation.figures.generator import Person
from id3pm.evaluation.figures.grid import Tile, beside, grid

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]

FACE, STEP = 192, 144
"""Pixels of the pictures of a person and of the steps away from it."""
LINE_LENGTH = 13
"""Letters of a line beside a row."""


def walks(
    person: Person,
    unchanged: Tile,
    rows: Sequence[Sequence[Tile | None]],
    *,
    columns: Sequence[str],
    labels: Sequence[str],
    ends: Sequence[tuple[str, str]],
) -> Image.Image:
    """Steps away from a person, a row for each way, beside the photograph and the unchanged face."""
    faces = grid([[Tile(person.image, f"{person.name}\nphotograph")], [unchanged]], size=FACE)
    return beside(faces, grid(rows, columns=columns, labels=labels, ends=ends, size=STEP))


def end(words: str, side: Literal["left", "right"]) -> str:
    """Label of an end of a row, in short lines with an arrow towards it."""
    lines = textwrap.wrap(words, LINE_LENGTH) or [""]
    return "\n".join([f"\u2039 {lines[0]}", *lines[1:]] if side == "left" else [*lines[:-1], f"{lines[-1]} \u203a"])


def enumerated(names: Sequence[str]) -> str:
    """Names in a sentence: `01, 02 and 03`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def cosines(found: Numbers, wanted: Numbers) -> Floats:
    """Cosine similarities of vectors [..., D] with broadcasting; NaN where one is NaN."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    dots = np.sum(a * b, axis=-1)
    return np.asarray(dots / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))


@overload
def mean(values: ArrayLike) -> float: ...
@overload
def mean(values: ArrayLike, axis: int) -> Floats: ...
def mean(values: ArrayLike, axis: int | None = None) -> float | Floats:
    """Mean without NaN; NaN where there is nothing else."""
    known = np.isfinite(np.asarray(values, np.float64))
    with np.errstate(invalid="ignore"):
        found = np.asarray(np.where(known, values, 0.0).sum(axis) / known.sum(axis), np.float64)
    return float(found) if axis is None else found


def slope(requested: Numbers, got: Numbers) -> float:
    """Share of the change asked for that was measured: least squares through the origin, without NaN."""
    known = np.isfinite(got)
    if not np.any(requested[known]):
        return float("nan")
    return float(np.sum(requested[known] * got[known]) / np.sum(requested[known] ** 2))


def rising(values: Numbers) -> float:
    """Share of neighbours along the last axis of which the second is larger; pairs with NaN do not count."""
    steps = np.diff(np.asarray(values, np.float64), axis=-1)
    return mean(np.where(np.isfinite(steps), steps > 0, np.nan))


def correlation(values: Numbers, against: Numbers) -> float:
    """Mean over rows [N, T] of the correlation with [T]; rows of fewer than three numbers or of one value are 0."""
    found = []
    for row in np.asarray(values, np.float64):
        known = np.isfinite(row)
        varied = known.sum() > 2 and np.ptp(row[known]) > 0
        found.append(np.corrcoef(row[known], np.asarray(against, np.float64)[known])[0, 1] if varied else 0.0)
    return float(np.mean(found))


def number(value: float, form: str = ".2f", before: str = "") -> str:
    """For captions and effects: two decimals, after what it is; or `no face` where none was found."""
    return "no face" if np.isnan(value) else f"{before} {value:{form}}".lstrip()


def heading(value: float) -> str:
    """For columns: with its sign unless it is zero."""
    return f"{value:+g}" if value else "0"


def listed(values: Numbers) -> list[object]:
    """For JSON: nested lists of three decimals; what is NaN becomes `null` in the file."""
    found: list[object] = np.round(np.asarray(values, np.float64), 3).tolist()
    return found
