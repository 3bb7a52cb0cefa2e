"""`id3pm evaluate verification`."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from id3pm.config import SamplingOptions
from id3pm.errors import InvalidInputError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.verification.fr_models import StageModel, open_models
from id3pm.evaluation.verification.pairs import PairSet
from id3pm.evaluation.verification.protocol import ProtocolName
from id3pm.evaluation.verification.report import VerificationReport, write_verification_report
from id3pm.evaluation.verification.sets import SetKind, read_set
from id3pm.evaluation.verification.study import Replace, Row, VerificationStudy
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS

FOLDER = click.Path(path_type=Path, file_okay=False)
SHORT = 12  # hexadecimal digits of a hash in the report


@click.command("verification")
@click.option(
    "--set",
    "set_texts",
    multiple=True,
    default=("data=data/demo",),
    metavar="KIND=PATH",
    help=f"Pairs of pictures, with a kind of {', '.join(get_args(SetKind))}; repeatable.",
)
@click.option(
    "--lfw-pairs", type=click.Path(path_type=Path, dir_okay=False), help="LFW's pairs.txt; else the one in its folder."
)
@click.option("--repository", type=FOLDER, default=Path("triton_repo"), help="Built engines.")
@click.option(
    "--fr-model",
    "fr_models",
    multiple=True,
    metavar="dlib|FOLDER",
    help="An FR model to decide beside the training one: dlib, or a folder of id3pm build-faces; repeatable.",
)
@click.option("--protocol", type=click.Choice(get_args(ProtocolName)), default="paper", help="How pairs are compared.")
@click.option("--guidance", "guidance_text", default="1,1.5,2,2.5,3", help="Guidance scales; empty: real images alone.")
@click.option("--replace", type=click.Choice(get_args(Replace)), default="second", help="The picture to generate.")
@click.option("--per-fold", type=click.IntRange(1), default=10, help="Pairs of either kind in each fold.")
@click.option("--full", is_flag=True, help="All pairs, as published numbers need; --per-fold says nothing then.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="How images are sampled; else the bundle's default.")
@click.option("--steps", type=click.IntRange(1), help="Of the 64 px loop; else the preset's.")
@click.option("--super-resolution", is_flag=True, help="Judge the 256 px images instead of the 64 px images.")
@click.option("--out", type=FOLDER, default=Path("out/evaluation"), help="Folder of the report.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores if not given.")
def verification_command(
    set_texts: tuple[str, ...],
    lfw_pairs: Path | None,
    repository: Path,
    fr_models: tuple[str, ...],
    protocol: ProtocolName,
    guidance_text: str,
    replace: Replace,
    per_fold: int,
    full: bool,
    preset: str | None,
    steps: int | None,
    super_resolution: bool,
    out: Path,
    threads: int | None,
) -> None:
    """Do FR models take generated faces for the person? LFW's protocol and its kin.

    Accuracy on real pictures, and with one picture of each pair replaced by a generated one, by guidance scale:
    verification.json and verification.md in --out, written anew after each row. What has been generated is kept in
    --out and not made again. Published numbers need --full and --preset paper.
    """
    guidance = _scales(guidance_text)
    whole = [read_set(text, lfw_pairs) for text in set_texts]
    sets = whole if full else [pairs.first_of_each_fold(per_fold) for pairs in whole]
    given = {"preset": preset, "steps": steps}
    sampling: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with Pipeline.load(repository, threads=threads) as pipeline, _progress() as bar:
        manifest = pipeline.base_manifest
        training = StageModel(repository, threads)
        if training.name != manifest.id_vector_model:
            raise InvalidInputError(
                f"the face stage gives {training.name} ID vectors, the U-Net takes "
                f"{manifest.id_vector_model}: build it with id3pm build-faces"
            )
        models = open_models(fr_models, training, threads)
        study = VerificationStudy(
            sets, training, models, pipeline, Cache(out / "cache"), protocol, replace, super_resolution
        )
        rows: list[Row] = []

        def report() -> None:
            write_verification_report(
                out,
                VerificationReport(
                    subject={
                        "bundle": manifest.bundle.name,
                        "weights": manifest.bundle.weights_sha256[:SHORT],
                        "target": manifest.target,
                        "precision": manifest.precision,
                        "size": 256 if super_resolution else 64,
                        **sampling,
                    },
                    protocol=protocol,
                    replaced=replace,
                    models=[model.name for model in models],
                    sets=sets,
                    whole=[len(pairs.same) for pairs in whole],
                    rows=rows,
                    asked=1 + len(guidance),
                ),
            )

        task = bar.add_task("real images", total=study.pictures())
        rows.append(study.real(functools.partial(bar.advance, task)))
        report()
        for scale in guidance:
            task = bar.add_task(f"guidance {scale:g}", total=study.images())
            started = time.perf_counter()
            options = {**sampling, "guidance_scale": scale}
            rows.append(study.generated(f"guidance {scale:g}", options, functools.partial(bar.advance, task)))
            report()
            seconds = time.perf_counter() - started
            if scale == guidance[0] and not full and seconds >= 1.0:  # else it was kept from an earlier run
                bar.console.print(_estimate(seconds, sets, whole, len(guidance)), soft_wrap=True)
    click.echo((out / "verification.md").read_text(encoding="utf-8"))


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"--guidance {text}: give numbers separated by commas, such as 1,2") from None
    for scale in scales:  # a bad value is noticed before anything is read
        SamplingOptions(guidance_scale=scale)
    return scales


def _estimate(seconds: float, sets: list[PairSet], whole: list[PairSet], rows: int) -> str:
    """What --full would take, by the time of one row."""
    share = sum(len(pairs.same) for pairs in whole) / sum(len(pairs.same) for pairs in sets)
    minutes = seconds * share * rows / 60
    return f"{seconds:.0f} s for this row; --full with all pairs would take about {minutes:.0f} min for {rows} row(s)"


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False))
