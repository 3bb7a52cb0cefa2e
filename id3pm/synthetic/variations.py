"""What differs between the images of one identity: seed, guidance scale, attributes."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import encode
from id3pm.errors import InvalidInputError
from id3pm.formats.json_files import parse_json
from id3pm.synthetic.draws import VARIATION, Draw, generator, parse_draw

FIRST_SEEDS = 2**32
"""Seeds of first attempts are below this; attempt k adds k times it (`retry_seed`)."""
WORDS = ("emotion", "gender")
"""Attributes that take words."""
Attributes: TypeAlias = Mapping[str, Draw | tuple[str, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variations:
    """How the images of every identity are varied.

    Attributes:
        images: Of each identity.
        guidance_scale: Drawn for each image.
        attributes: Name -> what is drawn for each image; empty where none are asked for.
        rows: Attributes by name, of which one is drawn for each image; empty for none.
    """

    images: int
    guidance_scale: Draw
    attributes: Attributes = dataclasses.field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def has_attributes(self) -> bool:
        """Whether any attribute is asked for."""
        return bool(self.attributes or self.rows)

    def of(self, seed: int, identity: int, attribute_set: int | str | None) -> list[Variation]:
        """The variations of one identity.

        Raises:
            InvalidInputError: The bundle does not take these attributes, or a value breaks a rule.
        """
        random = generator(seed, identity, VARIATION)
        found = []
        for _ in range(self.images):
            first = int(random.integers(FIRST_SEEDS))
            guidance = self.guidance_scale.value(random)
            values: dict[str, Any] = dict(self.rows[int(random.integers(len(self.rows)))]) if self.rows else {}
            for name, drawn in self.attributes.items():
                words = isinstance(drawn, tuple)
                values[name] = drawn[int(random.integers(len(drawn)))] if words else drawn.value(random)  # type: ignore[arg-type, index, union-attr]
            vector = None
            if values:
                if attribute_set is None:
                    raise InvalidInputError(f"attributes {', '.join(values)}: the bundle takes none")
                vector = encode(values, attribute_set)
            found.append(Variation(seed=first, guidance_scale=guidance, attributes=vector))
        return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Variation:
    """One image of an identity.

    Attributes:
        seed: Of the first attempt.
        guidance_scale: Exact in float32.
        attributes: float32 [A], or `None` for unspecified.
    """

    seed: int
    guidance_scale: float
    attributes: NDArray[np.float32] | None


def retry_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt, 0 for the first: each takes the next block of `FIRST_SEEDS`."""
    return (seed + attempt * FIRST_SEEDS) % 2**63


def parse_attributes(texts: Sequence[str]) -> Attributes:
    """Attributes from `yaw=-30..30` (uniform), `smile=0,0.5,1` (one of these) or `emotion=happy,sad`.

    Raises:
        InvalidInputError: Another form, or a name comes twice.
    """
    found: dict[str, Draw | tuple[str, ...]] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InvalidInputError(
                f"attribute {text[:64]!r}: give NAME=VALUES, such as yaw=-30..30 or emotion=happy,sad"
            )
        if name in found:
            raise InvalidInputError(f"attribute {name}: given twice")
        words = name in WORDS and not value[0].isdecimal()
        found[name] = (
            tuple(word.strip() for word in value.split(",")) if words else parse_draw(value, f"attribute {name}")
        )
    return found


def read_attributes(path: Path) -> list[dict[str, Any]]:
    """Attributes by name from a file, one set a row.

    Args:
        path: CSV whose first line names the attributes (empty cells are unspecified), or JSON lines of objects.

    Raises:
        InvalidInputError: Neither, or without rows; the message names the line.
        OSError: It cannot be read.
    """
    rows = _csv(path) if path.suffix.lower() == ".csv" else _json_lines(path)
    if not rows:
        raise InvalidInputError(f"{path.name}: has no row of attributes")
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            rows = list(table)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path.name} is no CSV file: {error}") from error
    found = []
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InvalidInputError(f"{path.name}, row {line}: must have as many cells as the first line")
        found.append({name: _number_or_word(text) for name, text in row.items() if text.strip()})
    return found


def _json_lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line, text in enumerate(path.read_bytes().splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = parse_json(text, f"{path.name}, line {line},")
        except ValueError as error:
            raise InvalidInputError(str(error)) from error
        if not isinstance(row, dict):
            raise InvalidInputError(f"{path.name}, line {line}: need an object such as {json.dumps({'yaw': 20})}")
        found.append(row)
    return found


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()
