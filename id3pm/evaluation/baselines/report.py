"""The report on baselines: JSON and tables; its pictures are in `sheets`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from id3pm.evaluation.baselines.interpolation import Smoothness
from id3pm.evaluation.baselines.judging import Judgement
from id3pm.evaluation.files import SCHEMA, write_json, write_text
from id3pm.evaluation.quality.diversity import Diversity
from id3pm.evaluation.quality.report import diversity_table, diversity_text

WHAT_IT_IS = (
    "Generators are of 64 px, the methods are reimplemented from their published maths, and queries are fewer than "
    "published where the budget says so: a comparison on equal terms here, not the paper's numbers."
)
AT_HOME = (
    "Targets are of two kinds. The held-out people were made by the generator of the embedded data set, so GAN search "
    "with that generator is at home there, though they are not in its bank. The photographs lie outside of its range."
)
UNEQUAL = (
    "Verification is ten-fold accuracy on one image of each person, quality the distance of these images from the "
    "people's real pictures; in brackets the number of people, which is smaller for methods that ask queries. Compare "
    "equal numbers alone."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One method on one set.

    Attributes:
        targets: Name of the set.
        method: Its name.
        judgement: What judges say.
        queries: Per face; NaN for other people.
        seconds: Per face, on the machine of the run.
        processor_seconds: Per face, of all threads of the process.
    """

    targets: str
    method: str
    judgement: Judgement
    queries: float
    seconds: float
    processor_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineReport:
    """All that a comparison found so far.

    Attributes:
        subject: What was compared.
        judges: Names; the black box first.
        quality: Name of the distance of pictures.
        notes: Sentences below the tables.
        results: By set and method.
        ways: Of interpolations.
        diversity: By set, of real pictures and of the methods that make several images of a target.
        features: Name of the network of its feature distance.
    """

    subject: Mapping[str, Any]
    judges: Sequence[str]
    quality: str
    notes: Sequence[str]
    results: Sequence[MethodResult]
    ways: Sequence[Smoothness]
    diversity: Mapping[str, Mapping[str, Diversity]]
    features: str


def write_baseline_report(folder: Path, report: BaselineReport) -> None:
    """Writes baselines.json and baselines.md; what was there before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "subject": dict(report.subject),
        "quality": report.quality,
        "notes": list(report.notes),
        "rows": [dataclasses.asdict(result) for result in report.results],
        "diversity": {name: dict(rows) for name, rows in report.diversity.items()},
        "interpolations": [dataclasses.asdict(each) for each in report.ways],
    }
    write_json(folder / "baselines.json", data)
    write_text(folder / "baselines.md", baseline_markdown(report))


def baseline_markdown(report: BaselineReport) -> str:
    """The results as tables."""
    judges = report.judges
    heads = [*judges, *(f"verification, {judge}" for judge in judges), report.quality]
    lines = [
        "# Ways to invert an FR model",
        "",
        ", ".join(f"{name} {value}" for name, value in report.subject.items()),
        "",
        f"Columns {' and '.join(judges)}: mean cosine of image and target by each judge over images with a face, in "
        f"brackets its 95 % interval (bootstrap over targets). {judges[0]} is the black box. {UNEQUAL} "
        f"{WHAT_IT_IS} {AT_HOME}",
        "",
        f"| targets | method | {' | '.join(heads)} | queries per face | seconds per face | processor seconds |",
        "|---" * (len(heads) + 5) + "|",
        *(_row(result, judges) for result in report.results),
    ]
    if report.diversity:
        lines += [
            "",
            "## Diversity",
            "",
            f"Methods that make several images of a target. {diversity_text(report.features)}",
        ]
    for name, rows in report.diversity.items():
        lines += ["", f"Targets: {name}.", "", *diversity_table(rows)]
    if report.ways:
        lines += [
            "",
            "## Interpolations",
            "",
            f"From one person to the next in equal steps of the ID vector, the same seed for each image, judged by "
            f"{judges[0]}. A step is the cosine distance of neighbouring images; largest: in mean steps.",
            "",
            "| targets | method | similarity to the vector asked for | step | largest step | pixels per step |",
            "|---|---|---|---|---|---|",
            *(
                f"| {each.targets} | {each.method} | {_number(each.similarity, 3)} | {_number(each.step, 3)} "
                f"| {_number(each.largest, 2)} | {_number(each.pixels, 1)} |"
                for each in report.ways
            ),
        ]
    return "\n".join([*lines, "", *(f"- {note}" for note in report.notes)]) + "\n"


def _row(result: MethodResult, judges: Sequence[str]) -> str:
    judgement = result.judgement
    cells = [_similarity(judgement, judge) for judge in judges]
    for judge in judges:
        accuracy = judgement.verification.get(judge, float("nan"))
        cells.append(_with_people(judgement, _number(100.0 * accuracy, 1, "%")))
    cells.append(_with_people(judgement, _number(judgement.quality, 1)))
    cells += [_number(result.queries, 0), _seconds(result.seconds), _seconds(result.processor_seconds)]
    return f"| {result.targets} | {result.method} | {' | '.join(cells)} |"


def _similarity(judgement: Judgement, judge: str) -> str:
    mean = judgement.similarity[judge]
    if not math.isfinite(mean):
        return "no face"
    low, high = judgement.interval[judge]
    missing = f", no face in {judgement.no_face[judge]:.0%}" if judgement.no_face[judge] else ""
    return f"{mean:.3f} ({low:.3f} .. {high:.3f}){missing}"


def _with_people(judgement: Judgement, text: str) -> str:
    return text if text == "-" else f"{text} ({judgement.people})"


def _seconds(value: float) -> str:
    return _number(value, 2 if value >= 0.1 else 4)


def _number(value: float, digits: int, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else "-"
