"""The report on quality: JSON and tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from id3pm.evaluation.files import SCHEMA, write_json, write_text
from id3pm.evaluation.markdown import table
from id3pm.evaluation.quality.distances import NEIGHBOUR
from id3pm.evaluation.quality.diversity import Diversity
from id3pm.evaluation.quality.study import FeatureNetwork, QualityRow
from id3pm.formats.datasets import Split

PEOPLE: Mapping[Split, str] = {"test": "held-out people", "train": "people that the networks were trained on"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityReport:
    """All that `id3pm evaluate quality` found so far.

    Attributes:
        subject: What was evaluated: bundle, engine, data.
        network: What looked at the images.
        people: People of the diversity table.
        seeds: Images of each.
        rows: Real images first.
        asked: Number of rows that were asked for.
        notes: What was left out, and why.
        split: Of the data set.
        references: Diversity of real pictures; empty where there are no rows of generated images.
    """

    subject: dict[str, Any]
    network: FeatureNetwork
    people: int
    seeds: int
    rows: Sequence[QualityRow]
    asked: int
    notes: Sequence[str]
    split: Split
    references: Mapping[str, Diversity]


def write_quality_report(folder: Path, report: QualityReport) -> None:
    """Writes quality.json and quality.md; what was there before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "subject": report.subject,
        "features": report.network.name,
        "people": report.people,
        "seeds": report.seeds,
        "split": report.split,
        "rows": [dataclasses.asdict(row) for row in report.rows],
        "references": dict(report.references),
        "asked": report.asked,
        "notes": list(report.notes),
    }
    write_json(folder / "quality.json", data)
    write_text(folder / "quality.md", quality_markdown(report))


def quality_markdown(report: QualityReport) -> str:
    """The report as tables."""
    network, count = report.network, report.rows[0].quality.count
    frechet, kernel = (f"{name}, {network.name}" for name in (network.frechet_name, network.kernel_name))
    lines = [
        "# Quality and diversity",
        "",
        ", ".join(f"{name} {value}" for name, value in report.subject.items()),
        "",
        f"One 64 px image of each of {count} {PEOPLE[report.split]}, against the real images of the same people. The "
        f"row of real images is the floor: those of {count} others. Distances depend on the number of images: compare "
        f"equal numbers alone. Precision and recall: k = {NEIGHBOUR}, radii as Kynkaanniemi et al. 2019 and "
        f"guided-diffusion's evaluator. {len(report.rows)} of {report.asked} rows done.",
        "",
        f"| images | {frechet} | {kernel} x 1000 | precision | recall |",
        "|---|---|---|---|---|",
        *(
            f"| {row.label} | {row.quality.frechet:.3f} | {1000 * row.quality.kernel:.3f} ± "
            f"{1000 * row.quality.kernel_std:.3f} | {row.quality.precision:.3f} | {row.quality.recall:.3f} |"
            for row in report.rows
        ),
    ]
    measured = {row.label: row.diversity for row in report.rows if row.diversity}
    if measured:
        lines += [
            "",
            "## Diversity",
            "",
            f"{report.seeds} images of each of {report.people} people; mean over people with its 95 % interval. "
            f"{diversity_text(network.name)}",
            "",
            *diversity_table({**report.references, **measured}),
        ]
    return "\n".join([*lines, *(f"\n{note}" for note in report.notes)]) + "\n"


def diversity_text(network: str) -> str:
    """What the columns of `diversity_table` mean, for features of this network."""
    return (
        "Means over the pairs of each person's images; 'to the target': the cosine distance to the person's ID vector, "
        "or to what a model beside the training one sees in the person's picture; dlib's vectors have the mean of "
        "other people subtracted. "
        f"Feature distance: cosine distance of {network}'s features, not LPIPS. Pose in degrees, expression in shares "
        "of what faces show; dlib's (yaw and pitch) in units of its own. A picture that is only blurred and brightened "
        "gives the floor of each measure, pictures of different people what it says where no identity is kept."
    )


def diversity_table(rows: Mapping[str, Diversity]) -> list[str]:
    """A row for each kind of images, as lines."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[label, *(_spread(row, name) for name in names)] for label, row in rows.items()]
    return table(("images", *names), cells)


def _spread(row: Diversity, name: str) -> str:
    if name not in row or not math.isfinite(row[name][0]):
        return "no face"
    mean, low, high = row[name]
    return f"{mean:.3f} ({low:.3f} .. {high:.3f})"
