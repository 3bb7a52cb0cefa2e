"""The report on verification: JSON and a table in the layout of Table 5 of the paper's supplement."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from id3pm.evaluation.files import SCHEMA, write_json, write_text
from id3pm.evaluation.markdown import head, table
from id3pm.evaluation.verification.pairs import PairSet
from id3pm.evaluation.verification.protocol import PROTOCOLS, Accuracy
from id3pm.evaluation.verification.study import AccuracyRow, Replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """All that `id3pm evaluate verification` found so far.

    Attributes:
        subject: What was evaluated: bundle, engine, image size.
        protocol: A name of `PROTOCOLS`.
        replaced: Which picture of each pair a generated one takes the place of.
        models: Names of the FR models, the training one first.
        sets: The sets, as far as they were used.
        whole: Pairs of each set as it was read.
        rows: Real images first.
        asked: Number of rows that were asked for.
        notes: How other methods differ from what was published.
    """

    subject: dict[str, Any]
    protocol: str
    replaced: Replace
    models: Sequence[str]
    sets: Sequence[PairSet]
    whole: Sequence[int]
    rows: Sequence[AccuracyRow]
    asked: int
    notes: Sequence[str]


def write_verification_report(folder: Path, report: VerificationReport) -> None:
    """Writes verification.json and verification.md; what was there before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "subject": report.subject,
        "protocol": report.protocol,
        "replaced": report.replaced,
        "models": list(report.models),
        "sets": [
            {"name": pairs.name, "pairs": len(pairs.same), "of": whole, "pictures": len(pairs.pictures)}
            for pairs, whole in zip(report.sets, report.whole, strict=True)
        ],
        "rows": [dataclasses.asdict(row) for row in report.rows],
        "asked": report.asked,
        "notes": list(report.notes),
    }
    write_json(folder / "verification.json", data)
    write_text(folder / "verification.md", verification_markdown(report))


def verification_markdown(report: VerificationReport) -> str:
    """The report as a table."""
    heads = [f"{pairs.name}: {model}" for pairs in report.sets for model in report.models]
    used = ", ".join(
        f"{pairs.name} {len(pairs.same)} of {whole} pairs"
        for pairs, whole in zip(report.sets, report.whole, strict=True)
    )
    lines = [
        *head("Verification", report.subject),
        f"Protocol `{report.protocol}`: {PROTOCOLS[report.protocol].text}; ten folds, accuracy ± standard deviation "
        f"of the folds. In the rows below the real images, the {report.replaced} picture of each pair is replaced by a "
        "face generated from its ID vector, by ID3PM at a guidance scale or by the named method. A pair without a face "
        "that can be detected, in either picture, is a wrong decision (in brackets: how many). "
        f"{report.models[0]} gave the ID vectors.",
        "",
        f"{used}. {len(report.rows)} of {report.asked} rows done.",
        "",
        *table(
            ("images", *heads),
            [(row.label, *(_cell(one) for of_set in row.accuracies for one in of_set)) for row in report.rows],
        ),
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in report.notes)]) + "\n"


def _cell(found: Accuracy) -> str:
    undecided = f" ({found.undecided})" if found.undecided else ""
    return f"{found.mean:.2%} ± {found.std:.2%}{undecided}"
