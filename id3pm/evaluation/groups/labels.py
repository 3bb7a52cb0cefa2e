"""The group of each person: from a label file, an attribute of the data set, or the brightness of the picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import decode, fields_of
from id3pm.errors import InvalidInputError
from id3pm.face.appearance import LUMA
from id3pm.formats import datasets

BRIGHTNESS = "brightness"
MOST_VALUES = 8
"""Attributes with more values than these are cut into thirds."""
MAX_BYTES = 100_000_000  # of a label file
NO_LABEL = ""


def groups_of(data: Path, count: int, labels: Path | None, name: str) -> list[str]:
    """The groups of the first held-out people of a data set; `NO_LABEL` where nothing is known.

    Args:
        data: The data set.
        count: How many people.
        labels: A CSV file with a header, a column `index` with the numbers of the data set's images, and a column
            `name`; `None` for an attribute of the data set, or `brightness`.
        name: Of the column or of the attribute.

    Raises:
        InvalidInputError: There is no such column or attribute, or the file breaks a rule.
    """
    split = datasets.load(data, "test")
    if labels is not None:
        by_index = read_labels(labels, name)
        return [by_index.get(int(index), NO_LABEL) for index in split["index"][:count]]
    if name == BRIGHTNESS:
        return thirds((split["images"][:count] @ LUMA).mean(axis=(1, 2)))
    attribute_set = datasets.describe(data).get("attribute_set")
    fields = [] if attribute_set is None else [field.name for field in fields_of(attribute_set)]
    if attribute_set is None or name not in fields or "attributes" not in split:
        known = ", ".join([BRIGHTNESS, *fields])
        raise InvalidInputError(f"--by {name}: this data set has {known}; or give --labels")
    decoded = [decode(vector, attribute_set) for vector in split["attributes"][:count]]
    values = np.array([each.get(name, np.nan) for each in decoded], np.float64)
    if len(np.unique(values[np.isfinite(values)])) > MOST_VALUES:
        return thirds(values)
    return [f"{value:g}" if np.isfinite(value) else NO_LABEL for value in values]


def read_labels(file: Path, column: str) -> dict[int, str]:
    """The labels of a CSV file by image number.

    Raises:
        InvalidInputError: A column is missing, an index is no number or comes twice, or the file is too large.
    """
    if file.stat().st_size > MAX_BYTES:
        raise InvalidInputError(f"{file.name} has {file.stat().st_size} bytes: at most {MAX_BYTES} are read")
    found: dict[int, str] = {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            for needed in ("index", column):
                if needed not in (rows.fieldnames or []):
                    have = ", ".join(rows.fieldnames or [])
                    raise InvalidInputError(f"{file.name} has the columns {have}: {needed} is missing")
            for row in rows:
                text = row["index"] or ""
                if not (text.isascii() and text.isdecimal() and len(text) < 19):
                    raise InvalidInputError(f"line {rows.line_num} of {file.name} has index {text!r}: give a number")
                if int(text) in found:
                    raise InvalidInputError(f"line {rows.line_num} of {file.name} gives index {text} a second time")
                found[int(text)] = (row[column] or NO_LABEL).strip()
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{file.name} is no CSV file in UTF-8: {error}") from error
    return found


def thirds(values: NDArray[np.floating[Any]]) -> list[str]:
    """`low`, `middle` or `high` third of each value; `NO_LABEL` for NaN."""
    known = values[np.isfinite(values)]
    if not len(known):
        return [NO_LABEL] * len(values)
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    return [
        NO_LABEL if not np.isfinite(value) else "low" if value < low else "high" if value >= high else "middle"
        for value in values
    ]
