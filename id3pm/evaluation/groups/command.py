"""`id3pm evaluate groups`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from id3pm.evaluation import files
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.groups.labels import BRIGHTNESS, groups_of
from id3pm.evaluation.groups.study import GroupResult, by_group, worst
from id3pm.evaluation.identity.report import plot_faces
from id3pm.evaluation.identity.study import IdentityStudy, Setting
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.judges import Judge, StageJudge
from id3pm.face.manifest import read_manifest
from id3pm.pipeline import Pipeline

FOLDER = click.Path(path_type=Path, file_okay=False)
FACE_MODELS = Path("face_embedding/1/engine")
SHORT = 12  # hexadecimal digits of a hash in the report


@click.command("groups")
@click.option("--data", type=FOLDER, default=Path("data/demo"), help="From id3pm demo-dataset or similar.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV file with a column index (of the data set's images) and the column --by.",
)
@click.option("--by", "name", default=BRIGHTNESS, help="Column of --labels; else an attribute of the data set.")
@click.option("--repository", type=FOLDER, default=Path("triton_repo"), help="Built engines.")
@click.option("--identities", type=click.IntRange(20), default=100, help="People from the data set's test split.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Images of each.")
@click.option("--guidance", type=float, default=2.0, help="Guidance scale.")
@click.option("--steps", type=click.IntRange(1), default=10, help="Of the 64 px loop.")
@click.option("--worst", "shown", type=click.IntRange(1), default=8, help="People on the page of the worst.")
@click.option("--independent/--no-independent", default=True, help="Also judge with dlib's network (extra evaluate).")
@click.option("--out", type=FOLDER, default=Path("out/evaluation"), help="Folder of the report.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores if not given.")
def groups_command(
    data: Path,
    labels: Path | None,
    name: str,
    repository: Path,
    identities: int,
    seeds: int,
    guidance: float,
    steps: int,
    shown: int,
    independent: bool,
    out: Path,
    threads: int | None,
) -> None:
    """Whose identity is kept less?

    Similarity of generated faces to their targets by group of people, with intervals, and the people it fails most:
    groups.json, groups.md and worst.png in --out. What has been generated is kept there and not made again.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now
    with Pipeline.load(repository, threads=threads) as pipeline:
        manifest = pipeline.base_manifest
        targets = load_targets(data, manifest.id_vector_model, identities, seeds)
        groups = groups_of(data, identities, labels, name)
        key = _models_key(repository)
        judges: list[Judge] = [StageJudge(pipeline.face_stage, key)]
        if independent:
            judges.append(DlibJudge(pipeline.face_stage, key))
        study = IdentityStudy(pipeline, targets, judges, Cache(out / "cache"))
        defaults = manifest.sampling
        setting = Setting(sampler=defaults.sampler, steps=steps, guidance_scale=guidance, spacing=defaults.spacing)
        images, similarities = study.faces(setting, identities, seeds)
        results = [
            row
            for base, of_judge in zip(study.baselines, similarities, strict=True)
            for row in by_group(base.judge, of_judge, groups, base.verification.threshold)
        ]
        subject = {
            "bundle": manifest.bundle.name,
            "weights": manifest.bundle.weights_sha256[:SHORT],
            "data": data.name,
            "by": name if labels is None else f"{name} of {labels.name}",
            "images per person": seeds,
            "guidance": guidance,
            "steps": steps,
        }
    chosen = worst(similarities[-1], shown)
    _write(out, subject, results, [{"person": person, "group": groups[person]} for person in chosen])
    plot_faces(
        out / "worst.png",
        targets.images[chosen],
        images[chosen],
        [judge.name for judge in judges],
        [each[chosen] for each in similarities],
    )
    click.echo((out / "groups.md").read_text(encoding="utf-8"))


def _write(
    out: Path, subject: dict[str, Any], results: Sequence[GroupResult], people: Sequence[dict[str, Any]]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(row) for row in results]
    report = {"schema": files.SCHEMA, "subject": subject, "rows": rows, "worst": people}
    files.write_json(out / "groups.json", report)
    lines = [
        "# Identity by group",
        "",
        ", ".join(f"{name} {value}" for name, value in subject.items()),
        "",
        "Mean cosine similarity of images and targets over people, with its 95 % interval (bootstrap over people). "
        "Accepted: at or above the judge's verification threshold, measured on these people's altered pictures. The "
        f"page of the worst, by {results[-1].judge}: worst.png.",
        "",
        "| judge | group | people | similarity | accepted | no face |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row.judge} | {row.group} | {row.people} | {_similarity(row)} | {row.accepted:.1%} "
            f"| {row.no_face:.1%} |"
            for row in results
        ),
    ]
    files.write_text(out / "groups.md", "\n".join(lines) + "\n")


def _similarity(row: GroupResult) -> str:
    return f"{row.similarity:.3f} ({row.low:.3f} .. {row.high:.3f})" if math.isfinite(row.similarity) else "no face"


def _models_key(repository: Path) -> str:
    manifest = read_manifest(repository / FACE_MODELS)
    return f"{' '.join(manifest.detector_files.values())} {manifest.encoder_sha256}"
