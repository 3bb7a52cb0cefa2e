"""`id3pm evaluate verification`."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import click

from id3pm.command_options import option, takes
from id3pm.evaluation.options import PairModelOptions, PresetOptions, guidance_scales, subject_of
from id3pm.evaluation.progress import progress_bar
from id3pm.evaluation.verification.fr_models import FaceEngineModel
from id3pm.evaluation.verification.pairs import PairSet
from id3pm.evaluation.verification.protocol import ProtocolName
from id3pm.evaluation.verification.report import VerificationReport, write_verification_report
from id3pm.evaluation.verification.sets import SetKind, read_set
from id3pm.evaluation.verification.study import AccuracyRow, OtherMethod, Replace, VerificationStudy


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerificationOptions(PairModelOptions, PresetOptions):
    """The options of `id3pm evaluate verification`."""

    sets: tuple[str, ...] = option(
        "--set",
        multiple=True,
        default=("data=data/demo",),
        metavar="KIND=PATH",
        help=f"Pairs of pictures, with a kind of {', '.join(get_args(SetKind))}; repeatable.",
    )
    lfw_pairs: Path | None = option(
        type=click.Path(path_type=Path, dir_okay=False), help="LFW's pairs.txt; else the one in its folder."
    )
    protocol: ProtocolName = option(
        type=click.Choice(get_args(ProtocolName)), default="paper", help="How pairs are compared."
    )
    guidance: tuple[float, ...] = option(
        callback=guidance_scales, default="1,1.5,2,2.5,3", help="Guidance scales; empty: real images alone."
    )
    replace: Replace = option(type=click.Choice(get_args(Replace)), default="second", help="The picture to generate.")
    per_fold: int = option(type=click.IntRange(1), default=10, help="Pairs of either kind in each fold.")
    full: bool = option(is_flag=True, help="All pairs, as published numbers need; --per-fold says nothing then.")
    super_resolution: bool = option(is_flag=True, help="Judge the 256 px images instead of the 64 px images.")


@click.command("verification")
@takes(VerificationOptions)
def verification_command(options: VerificationOptions) -> None:
    """Do FR models take generated faces for the person? LFW's protocol and its kin.

    Accuracy on real pictures, and with one picture of each pair replaced by a generated one, by guidance scale:
    verification.json and verification.md in --out, written anew after each row. What has been generated is kept in
    --out and not made again. Published numbers need --full and --preset paper.
    """
    verify_sets(options, lambda training, notes: [])


def verify_sets(
    options: VerificationOptions, other_methods: Callable[[FaceEngineModel, list[str]], Sequence[OtherMethod]]
) -> None:
    """Reads the sets, generates, decides, and writes and prints the report.

    Args:
        options: Of the command.
        other_methods: Given the FR model of the ID vectors and a list for notes, opens methods for rows of their own.
    """
    whole = [read_set(text, options.lfw_pairs) for text in options.sets]
    sets = whole if options.full else [pairs.first_of_each_fold(options.per_fold) for pairs in whole]
    with options.pipeline() as pipeline, progress_bar() as bar:
        for scale in options.guidance:
            pipeline.check(super_resolution=options.super_resolution, **{**options.sampling, "guidance_scale": scale})
        training, models = options.models(pipeline.base_manifest)
        study = VerificationStudy(
            sets=sets,
            training=training,
            models=models,
            pipeline=pipeline,
            cache=options.cache(),
            protocol=options.protocol,
            replace=options.replace,
            super_resolution=options.super_resolution,
        )
        rows: list[AccuracyRow] = []
        notes: list[str] = []
        others = other_methods(training, notes)
        size = 256 if options.super_resolution else 64
        report = VerificationReport(
            subject=subject_of(pipeline.base_manifest, size=size, **options.sampling),
            protocol=options.protocol,
            replaced=options.replace,
            models=[model.name for model in models],
            sets=sets,
            whole=[len(pairs.same) for pairs in whole],
            rows=rows,
            asked=1 + len(others) + len(options.guidance),
            notes=notes,
        )
        rows.append(study.real(functools.partial(bar.advance, bar.add_task("real images", total=study.pictures()))))
        write_verification_report(options.out, report)
        for method in others:
            advance = functools.partial(bar.advance, bar.add_task(method.label, total=study.images()))
            rows.append(study.made_by(method.label, None, method.chunks, advance, aligned=method.aligned))
            write_verification_report(options.out, report)
        for scale in options.guidance:
            started, label = time.perf_counter(), f"guidance {scale:g}"
            advance = functools.partial(bar.advance, bar.add_task(label, total=study.images()))
            rows.append(study.generated(label, {**options.sampling, "guidance_scale": scale}, advance))
            write_verification_report(options.out, report)
            seconds = time.perf_counter() - started
            if (
                scale == options.guidance[0] and not options.full and seconds >= 1.0
            ):  # else it was kept from an earlier run
                bar.console.print(_estimate(seconds, sets, whole, len(options.guidance)), soft_wrap=True)
    click.echo((options.out / "verification.md").read_text(encoding="utf-8"))


def _estimate(seconds: float, sets: list[PairSet], whole: list[PairSet], rows: int) -> str:
    """What --full would take, by the time of one row."""
    share = sum(len(pairs.same) for pairs in whole) / sum(len(pairs.same) for pairs in sets)
    minutes = seconds * share * rows / 60
    return f"{seconds:.0f} s for this row; --full with all pairs would take about {minutes:.0f} min for {rows} row(s)"
