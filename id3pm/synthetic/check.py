"""Reads a data set and says what is in it, and what is wrong with it."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.evaluation import files
from id3pm.idspace.vectors import Vectors
from id3pm.synthetic.histograms import draw_similarities
from id3pm.synthetic.maker import PLAN_FILE, plan_of, read_description
from id3pm.synthetic.plan_file import Plan, PlannedImage
from id3pm.synthetic.shard_files import (
    KEPT,
    REJECTED,
    kept_name,
    numbers_of,
    read_table,
    read_tar,
    rejected_name,
    sha256,
    tar_name,
)
from id3pm.synthetic.store import Store
from id3pm.synthetic.variations import retry_seed

MOST_NAMED = 10
"""Problems and pairs that are named; the others are counted."""
SIMILARITIES = ("similarity", "other_similarity", "second_similarity")


@dataclasses.dataclass(eq=False)
class Report:
    """What is in a data set.

    Attributes:
        planned: Images of the plan.
        shards: Shards of the plan.
        missing_shards: Those that are not there.
        images: Pictures in the tar files.
        identities: With one picture or more.
        rejected: Images that were made in vain, by reason.
        similarities: Name -> of all pictures, NaN left out.
        too_close: Pairs of identities below the angle: numbers and degrees, the closest first.
        pairs_too_close: How many of these there are.
        sums: File -> sha256.
        problems: What is damaged, a sentence each.
    """

    planned: int
    shards: int
    missing_shards: list[int] = dataclasses.field(default_factory=list)
    images: int = 0
    identities: int = 0
    rejected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    similarities: dict[str, NDArray[np.float64]] = dataclasses.field(default_factory=dict)
    too_close: list[tuple[int, int, float]] = dataclasses.field(default_factory=list)
    pairs_too_close: int = 0
    sums: dict[str, str] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def digest(self) -> str:
        """One hash (hex) for all files: two data sets with the same one are equal in every byte."""
        text = "".join(f"{value}  {name}\n" for name, value in sorted(self.sums.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def lines(self) -> Iterator[str]:
        """The report for people."""
        there = self.shards - len(self.missing_shards)
        yield f"{there} of {self.shards} shards, {self.images} of {self.planned} images, {self.identities} identities"
        if self.missing_shards:
            yield f"missing shards: {_some(self.missing_shards)}"
        if self.rejected:
            yield "rejected: " + ", ".join(f"{count} {reason}" for reason, count in sorted(self.rejected.items()))
        for name, values in self.similarities.items():
            if len(values):
                low, middle, high = np.percentile(values, (1, 50, 99))
                yield f"{name}: median {middle:.3f}, 1 % below {low:.3f}, 1 % above {high:.3f}"
        if self.pairs_too_close:
            named = ", ".join(f"{a} and {b} ({degrees:.1f})" for a, b, degrees in self.too_close)
            yield f"{self.pairs_too_close} pairs of identities are too close (degrees): {named}"
        for problem in self.problems[:MOST_NAMED]:
            yield f"problem: {problem}"
        if len(self.problems) > MOST_NAMED:
            yield f"... {len(self.problems)} problems in all"
        yield f"sha256 of all files: {self.digest}"

    def to_json(self) -> dict[str, Any]:
        """The report for programs."""
        quartiles = {
            name: dict(zip(("p1", "p50", "p99"), np.percentile(values, (1, 50, 99)).tolist(), strict=True))
            for name, values in self.similarities.items()
            if len(values)
        }
        return {
            "schema": files.SCHEMA,
            "planned": self.planned,
            "images": self.images,
            "identities": self.identities,
            "shards": self.shards,
            "missing_shards": self.missing_shards,
            "rejected": dict(sorted(self.rejected.items())),
            "similarities": quartiles,
            "pairs_too_close": self.pairs_too_close,
            "too_close": [{"a": a, "b": b, "degrees": degrees} for a, b, degrees in self.too_close],
            "problems": self.problems,
            "sha256": dict(sorted(self.sums.items())),
            "digest": self.digest,
        }


def check_dataset(store: Store, folder: Path | None, too_close_degrees: float) -> Report:
    """Reads every file of a data set.

    Args:
        store: The data set's folder.
        folder: For `check.json` and `similarities.png`, or `None`.
        too_close_degrees: Angle below which two identities are named.

    Raises:
        InvalidInputError: It is no data set.
        Id3pmError: The folder cannot be read.
    """
    description = read_description(store)
    plan = plan_of(store)
    report = Report(planned=plan.header.images, shards=plan.header.shards)
    if plan.sha256 != description.get("plan_sha256"):
        report.problems.append(f"{PLAN_FILE} is not the plan that dataset.json names")
    there = numbers_of(store.names())
    report.missing_shards = sorted(set(range(plan.header.shards)) - there)
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in SIMILARITIES}
    identities: set[int] = set()
    for number in sorted(there & set(range(plan.header.shards))):
        try:
            kept = _check_shard(store, plan, number, report)
        except Id3pmError as error:
            report.problems.append(f"shard {number:05d}: {error}")
            continue
        report.images += len(kept)
        identities |= set(kept.column("identity").to_pylist())
        for name, found in parts.items():
            values = kept.column(name).to_numpy().astype(np.float64)
            found.append(values[np.isfinite(values)])
    report.identities = len(identities)
    report.similarities = {name: np.concatenate([np.empty(0), *found]) for name, found in parts.items()}
    report.too_close, report.pairs_too_close = close_pairs(plan.targets(), too_close_degrees)
    if folder is not None:
        files.write_json(folder / "check.json", report.to_json())
        draw_similarities(folder / "similarities.png", report.similarities, plan.header.filters)
    return report


def _check_shard(store: Store, plan: Plan, number: int, report: Report) -> pa.Table:
    """The table of a shard's images, after comparing it with plan and pictures."""
    for name in (tar_name(number), kept_name(number), rejected_name(number)):
        if not store.exists(name):
            raise InvalidInputError(f"{name} is missing: delete {tar_name(number)} and run again")
        report.sums[name] = sha256(store.read(name))
    kept, rejected = read_table(store, kept_name(number), KEPT), read_table(store, rejected_name(number), REJECTED)
    report.rejected.update(rejected.column("reason").to_pylist())
    planned = {row.image: row for row in plan.shard(number)}
    pictures = read_tar(store, tar_name(number))
    suffix = plan.header.image_format
    keys = kept.column("key").to_pylist()
    found = sorted(name for name in pictures if name.endswith(f".{suffix}"))
    if found != sorted(f"{key}.{suffix}" for key in keys):
        raise InvalidInputError(f"{tar_name(number)} has {len(found)} pictures, {kept_name(number)} {len(keys)} rows")
    for row in kept.select(["key", "image", "identity", "attempt", "seed", "id_vector", "sha256"]).to_pylist():
        _check_row(row, planned, pictures[f"{row['key']}.{suffix}"])
    return kept


def _check_row(row: dict[str, Any], planned: dict[int, PlannedImage], picture: bytes) -> None:
    plan = planned.get(row["image"])
    if plan is None or (plan.identity, retry_seed(plan.seed, row["attempt"])) != (row["identity"], row["seed"]):
        raise InvalidInputError(f"image {row['key']} is not the plan's")
    if not np.array_equal(np.array(row["id_vector"], np.float32), plan.vector):
        raise InvalidInputError(f"image {row['key']} has another ID vector than the plan")
    if sha256(picture) != row["sha256"]:
        raise InvalidInputError(f"the picture {row['key']} is damaged: its sha256 is not that of the table")


def close_pairs(vectors: Vectors, degrees: float) -> tuple[list[tuple[int, int, float]], int]:
    """Pairs of vectors [N, D] at an angle below `degrees`: the closest with their angles, and how many there are.

    Compares all with all: 100 thousand take a minute, a million hours; 0 degrees compares none.
    """
    if degrees <= 0:
        return [], 0
    with np.errstate(invalid="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    limit, count = math.cos(math.radians(degrees)), 0
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(unit), 1024):
        cosines = unit[start : start + 1024] @ unit.T
        rows, columns = np.nonzero(cosines > limit)
        pairs = [(start + int(a), int(b)) for a, b in zip(rows, columns, strict=True) if start + a < b]
        count += len(pairs)
        found += [(a, b, math.degrees(math.acos(min(float(cosines[a - start, b]), 1.0)))) for a, b in pairs]
        found = sorted(found, key=lambda pair: pair[2])[:MOST_NAMED]
    return found, count


def _some(numbers: list[int]) -> str:
    more = f" ... ({len(numbers)} in all)" if len(numbers) > MOST_NAMED else ""
    return ", ".join(map(str, numbers[:MOST_NAMED])) + more
