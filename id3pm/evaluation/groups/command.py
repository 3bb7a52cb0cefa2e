"""`id3pm evaluate groups`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from id3pm.command_options import EXISTING_FILE, option, takes
from id3pm.evaluation import files
from id3pm.evaluation.files import SHORT
from id3pm.evaluation.groups.labels import BRIGHTNESS, groups_of
from id3pm.evaluation.groups.study import GroupResult, by_group, worst
from id3pm.evaluation.identity.report import plot_faces
from id3pm.evaluation.identity.study import IdentityStudy, Setting
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.markdown import head, table
from id3pm.evaluation.options import DataOptions, JudgeOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupsOptions(JudgeOptions, DataOptions):
    """The options of `id3pm evaluate groups`."""

    labels: Path | None = option(
        type=EXISTING_FILE,
        help="CSV file with a column index (of the data set's images) and the column --by.",
    )
    by: str = option(default=BRIGHTNESS, help="Column of --labels; else an attribute of the data set.")
    identities: int = option(type=click.IntRange(20), default=100, help="People from the data set's test split.")
    seeds: int = option(type=click.IntRange(1), default=1, help="Images of each.")
    guidance: float = option(type=float, default=2.0, help="Guidance scale.")
    steps: int = option(type=click.IntRange(1), default=10, help="Of the 64 px loop.")
    worst: int = option(type=click.IntRange(1), default=8, help="People on the page of the worst.")

    def subject(self, bundle: str, weights: str) -> dict[str, Any]:
        """For the head of the report."""
        return {
            "bundle": bundle,
            "weights": weights[:SHORT],
            "data": self.data.name,
            "by": self.by if self.labels is None else f"{self.by} of {self.labels.name}",
            "images per person": self.seeds,
            "guidance": self.guidance,
            "steps": self.steps,
        }


@click.command("groups")
@takes(GroupsOptions)
def groups_command(options: GroupsOptions) -> None:
    """Is the identity of some groups of people kept less?

    Similarity of generated faces to their targets by group of people, with intervals, and the people it fails most:
    groups.json, groups.md and worst.png in --out. What has been generated is kept there and not made again.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now
    with options.pipeline() as pipeline:
        manifest = pipeline.base_manifest
        sampler, spacing = manifest.sampling.sampler, manifest.sampling.spacing
        setting = Setting(sampler=sampler, steps=options.steps, guidance_scale=options.guidance, spacing=spacing)
        pipeline.check(super_resolution=False, **dataclasses.asdict(setting))
        targets = load_targets(options.data, manifest.id_vector_model, options.identities, options.seeds)
        groups = groups_of(options.data, options.identities, options.labels, options.by)
        judges = options.judges(pipeline.face_stage)
        study = IdentityStudy(pipeline, targets, judges, options.cache())
        images, similarities = study.faces(setting, options.identities, options.seeds)
        results = [
            row
            for base, of_judge in zip(study.baselines, similarities, strict=True)
            for row in by_group(base.judge, of_judge, groups, base.verification.threshold)
        ]
    chosen = worst(similarities[-1], options.worst)
    subject = options.subject(manifest.bundle.name, manifest.bundle.weights_sha256)
    _write(options.out, subject, results, [{"person": person, "group": groups[person]} for person in chosen])
    plot_faces(
        options.out / "worst.png",
        targets.images[chosen],
        images[chosen],
        [judge.name for judge in judges],
        [each[chosen] for each in similarities],
    )
    click.echo((options.out / "groups.md").read_text(encoding="utf-8"))


def _write(
    out: Path, subject: dict[str, Any], results: Sequence[GroupResult], people: Sequence[dict[str, Any]]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(row) for row in results]
    report = {"schema": files.SCHEMA, "subject": subject, "rows": rows, "worst": people}
    files.write_json(out / "groups.json", report)
    lines = [
        *head("Identity by group", subject),
        "Mean cosine similarity of images and targets over people, with its 95 % interval (bootstrap over people). "
        "Accepted: at or above the judge's verification threshold, measured on these people's altered pictures. The "
        f"page of the worst, by {results[-1].judge}: worst.png.",
        "",
        *table(
            ("judge", "group", "people", "similarity", "accepted", "no face"),
            [
                (row.judge, row.group, str(row.people), _similarity(row), f"{row.accepted:.1%}", f"{row.no_face:.1%}")
                for row in results
            ],
        ),
    ]
    files.write_text(out / "groups.md", "\n".join(lines) + "\n")


def _similarity(row: GroupResult) -> str:
    return f"{row.similarity:.3f} ({row.low:.3f} .. {row.high:.3f})" if math.isfinite(row.similarity) else "no face"
