"""The command line of this room: `id3pm evaluate identity`, `presets`, `super-resolution` and `card`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from id3pm.config import SamplerName, SamplingOptions, SpacingName
from id3pm.engines.manifest import Manifest
from id3pm.errors import InvalidInputError
from id3pm.evaluation import files
from id3pm.evaluation.baselines.command import baselines_command
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.card import SHORT, card_command
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.groups.command import groups_command
from id3pm.evaluation.identity import report as reports
from id3pm.evaluation.identity.photographs import likenesses, named_pictures, people_of, summary
from id3pm.evaluation.identity.presets import measure_preset, presets_markdown, seconds_by_preset
from id3pm.evaluation.identity.study import ALWAYS, IdentityStudy, Setting, SettingResult, settings_of
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.judges import Judge, StageJudge
from id3pm.evaluation.quality.command import quality_command
from id3pm.evaluation.super_resolution.report import write_super_resolution_report
from id3pm.evaluation.super_resolution.study import compare, enlarge, held_out_photographs, photograph_crops
from id3pm.evaluation.verification.command import verification_command
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceStage
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import read_bundle, weights_hash
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS

FOLDER = click.Path(path_type=Path, file_okay=False)
SAMPLER, SPACING = click.Choice(get_args(SamplerName)), click.Choice(get_args(SpacingName))
FACE_MODELS = Path("face_embedding/1/engine")
PEOPLE_IN_PICTURE, SEEDS_IN_PICTURE = 8, 4
data_option = click.option("--data", type=FOLDER, default=Path("data/demo"), help="From id3pm demo-dataset or similar.")
repository_option = click.option("--repository", type=FOLDER, default=Path("triton_repo"), help="Built engines.")
out_option = click.option("--out", type=FOLDER, default=Path("out/evaluation"), help="Folder of the report.")
threads_option = click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores if not given.")


def _numbers(kind: type[int] | type[float]) -> Callable[[click.Context, click.Parameter, str], tuple[Any, ...]]:
    """Reads numbers separated by commas."""

    def convert(context: click.Context, parameter: click.Parameter, text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r}: give numbers separated by commas, such as 10,25") from None

    return convert


def _intervals(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """Reads time steps such as 200-800."""
    found = []
    for text in texts:
        low, dash, high = text.partition("-")
        if not (dash and low.isdecimal() and high.isdecimal()):
            raise click.BadParameter(f"{text!r}: give the first and the last time step, such as 200-800")
        found.append((int(low), int(high)))
    return found


@click.group("evaluate")
def evaluate_group() -> None:
    """Measure what built engines and bundles are worth."""


evaluate_group.add_command(card_command)
evaluate_group.add_command(baselines_command)
evaluate_group.add_command(groups_command)
evaluate_group.add_command(quality_command)
evaluate_group.add_command(verification_command)


@evaluate_group.command("identity")
@data_option
@repository_option
@out_option
@click.option("--identities", type=click.IntRange(20), default=500, help="People from the data set's test split.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Images of each.")
@click.option("--guidance", callback=_numbers(float), default="1,1.5,2,2.5,3", help="Guidance scales, at --at-steps.")
@click.option("--steps", callback=_numbers(int), default="10,25,50,250", help="Numbers of steps, at --at-guidance.")
@click.option("--at-guidance", type=float, default=2.0, help="The guidance scale at which steps are compared.")
@click.option("--at-steps", type=int, default=25, help="The steps at which guidance scales are compared.")
@click.option("--sampler", "samplers", type=SAMPLER, multiple=True, help="May be repeated; else the bundle's default.")
@click.option("--spacing", "spacings", type=SPACING, multiple=True, help="May be repeated.  [default: uniform]")
@click.option(
    "--interval", "intervals", callback=_intervals, multiple=True, help="Guidance at time steps 200-800 alone."
)
@click.option("--super-resolution", is_flag=True, help="Judge the 256 px images instead of the 64 px images.")
@click.option("--independent/--no-independent", default=True, help="Also judge with dlib's network (extra evaluate).")
@threads_option
def identity_command(
    data: Path,
    repository: Path,
    out: Path,
    identities: int,
    seeds: int,
    guidance: tuple[float, ...],
    steps: tuple[int, ...],
    at_guidance: float,
    at_steps: int,
    samplers: tuple[SamplerName, ...],
    spacings: tuple[SpacingName, ...],
    intervals: list[tuple[int, int]],
    super_resolution: bool,
    independent: bool,
    threads: int | None,
) -> None:
    """Measures the identity of generated faces.

    Generates faces of people held out from training and compares their ID vectors: identity.json, identity.md,
    identity.png and faces.png in --out. One setting after the other; the report is written anew after each. What has
    been generated is kept in --out and not made again, so an interrupted evaluation goes on where it stopped.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now, not after hours
    with Pipeline.load(repository, threads=threads) as pipeline:
        manifest = pipeline.base_manifest
        samplers = samplers or (manifest.sampling.sampler,)
        spacings = spacings or ("uniform",)
        settings = settings_of(samplers, guidance, steps, at_guidance, at_steps, spacings, intervals)
        for setting in settings:  # a bad value is noticed now, too
            SamplingOptions(**dataclasses.asdict(setting))
        judges = _judges(pipeline, repository, independent)
        targets = load_targets(data, manifest.id_vector_model, identities, seeds)
        study = IdentityStudy(pipeline, targets, judges, Cache(out / "cache"), super_resolution)
        results: list[SettingResult] = []
        with _progress() as bar:
            for setting in settings:
                task = bar.add_task(_label(setting), total=identities * seeds)
                results.append(study.measure(setting, lambda count, task=task: bar.advance(task, count)))  # type: ignore[misc]
                bar.console.print(_line(results[-1]), soft_wrap=True)
                report = reports.IdentityReport(
                    subject={**_subject(manifest, data), "size": 256 if super_resolution else 64},
                    identities=identities,
                    images_per_identity=seeds,
                    at_guidance=at_guidance,
                    at_steps=at_steps,
                    baselines=study.baselines,
                    results=tuple(results),
                    settings=len(settings),
                )
                reports.write_identity_report(out, report)
        images, similarities = study.faces(settings[0], PEOPLE_IN_PICTURE, SEEDS_IN_PICTURE)
        reports.plot_faces(
            out / "faces.png",
            targets.images[:PEOPLE_IN_PICTURE],
            images,
            [judge.name for judge in judges],
            similarities,
        )
    click.echo(f"report: {out / 'identity.md'}")


@evaluate_group.command("photographs")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@repository_option
@out_option
@click.option("--seeds", type=click.IntRange(1), default=4, help="Images of each person.")
@click.option("--steps", type=click.IntRange(1), default=10)
@click.option("--guidance", type=float, default=2.0)
@click.option("--spacing", type=SPACING, default="logsnr")
@click.option("--independent/--no-independent", default=True, help="Also judge with dlib's network (extra evaluate).")
@threads_option
def photographs_command(
    folder: Path,
    repository: Path,
    out: Path,
    seeds: int,
    steps: int,
    guidance: float,
    spacing: SpacingName,
    independent: bool,
    threads: int | None,
) -> None:
    """Do generated faces show the people of photographs?

    FOLDER has photographs; every face in them counts as one person. Similarities of images of each, and of everyone
    else's images, to the photograph: photographs.json in --out. No picture is kept.
    """
    options = {"steps": steps, "guidance_scale": guidance, "spacing": spacing}
    with Pipeline.load(repository, threads=threads) as pipeline:
        people = people_of(named_pictures(folder), pipeline.face_stage)

        def generate(vectors: Any, of_seeds: Any) -> Any:
            return pipeline.generate_64(vectors, of_seeds, **options)

        found = likenesses(people, generate, _judges(pipeline, repository, independent), seeds)
        subject = _subject(pipeline.base_manifest, folder)
    for one in found:
        click.echo(f"{one.name:24} {one.judge:6} {one.similarity:6.3f}, strangers {one.strangers:6.3f}")
    means = summary(found)
    for mean in means:
        click.echo(f"{'mean':24} {mean['judge']:6} {mean['similarity']:6.3f}, strangers {mean['strangers']:6.3f}")
    out.mkdir(parents=True, exist_ok=True)
    report = {"subject": subject, **options, "seeds": seeds, "means": means}
    report["people"] = [dataclasses.asdict(one) for one in found]
    files.write_json(out / "photographs.json", report)
    click.echo(f"report: {out / 'photographs.json'}")


@evaluate_group.command("presets")
@data_option
@repository_option
@out_option
@click.option("--identities", type=click.IntRange(20), default=100, help="People from the data set's test split.")
@click.option("--timed", type=click.IntRange(1), default=4, help="256 px images that each preset makes for its speed.")
@click.option("--independent/--no-independent", default=True, help="Also judge with dlib's network (extra evaluate).")
@threads_option
def presets_command(
    data: Path, repository: Path, out: Path, identities: int, timed: int, independent: bool, threads: int | None
) -> None:
    """What do faster presets cost?

    Speed, identity and agreement with `paper` of every sampling preset: presets.json and presets.md in --out. What has
    been generated is kept there and not made again, so an interrupted evaluation goes on where it stopped.
    """
    with Pipeline.load(repository, threads=threads) as pipeline, _progress() as bar:
        manifest = pipeline.base_manifest
        judges = _judges(pipeline, repository, independent)
        targets = load_targets(data, manifest.id_vector_model, identities, 1)
        task = bar.add_task("speed", total=len(PRESETS))
        seconds = seconds_by_preset(pipeline, targets, timed, lambda name: bar.advance(task))
        study = IdentityStudy(pipeline, targets, judges, Cache(out / "cache"))
        results = []
        for name, preset in PRESETS.items():
            task = bar.add_task(name, total=identities)
            results.append(
                measure_preset(name, preset, study, manifest, seconds[name], lambda n, task=task: bar.advance(task, n))  # type: ignore[misc]
            )
    subject = _subject(manifest, data)
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "schema": files.SCHEMA,
        "subject": subject,
        "identities": identities,
        "baselines": [dataclasses.asdict(base) for base in study.baselines],
        "presets": [dataclasses.asdict(result) for result in results],
    }
    files.write_json(out / "presets.json", report)
    text = presets_markdown(subject, identities, study.baselines, results)
    files.write_text(out / "presets.md", text)
    click.echo(text)


@evaluate_group.command("super-resolution")
@click.option("--bundle", type=FOLDER, default=Path("bundles/demo"))
@data_option
@repository_option
@out_option
@click.option("--count", type=click.IntRange(1), default=64, help="Held-out faces.")
@click.option("--photographs", type=FOLDER, help="Folder of JPEG or PNG files; else some that packages carry.")
@click.option("--sampler", type=SAMPLER, help="Else the bundle's default.")
@click.option("--steps", type=int, help="Else the bundle's default.")
@click.option("--consistency", type=float, help="Else the bundle's default.")
@threads_option
def super_resolution_command(
    bundle: Path,
    data: Path,
    repository: Path,
    out: Path,
    count: int,
    photographs: Path | None,
    sampler: SamplerName | None,
    steps: int | None,
    consistency: float | None,
    threads: int | None,
) -> None:
    """Is the super-resolution network better than Lanczos?

    PSNR, SSIM and identity on held-out faces and on crops of photographs: super_resolution.json, .md and .png in
    --out. Runs the bundle's PyTorch network, because engines are built for one size.
    """
    files.new_figure(1, 1)
    description = read_bundle(bundle)
    given = {"sampler": sampler, "steps": steps, "consistency": consistency}
    if sampler not in (None, description.sr_sampling.sampler):
        given["eta"] = 0.0  # the bundle's belongs to its sampler
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options = dataclasses.replace(description.sr_sampling, **changes)
    judge = StageJudge(FaceStage.load(repository / FACE_MODELS, threads), _models_key(repository))
    faces = shards.load(data, "test")["images"][:count]
    crops = photograph_crops(_pictures(photographs), description.sr.image_size)
    sets = (("held-out faces", faces, judge), ("photographs", crops, None))
    comparisons, shown = [], []
    with _progress() as bar:
        for name, truth, face_judge in sets:
            task = bar.add_task(name, total=len(truth))
            enlarged = enlarge(bundle, truth, options, lambda task=task: bar.advance(task))  # type: ignore[misc]
            comparisons.append(compare(name, enlarged, face_judge))
            shown.append(enlarged)
    subject = {
        "bundle": description.name,
        "weights": weights_hash(bundle, "sr")[:SHORT],
        "sampler": options.sampler,
        "steps": options.steps,
        "consistency": options.consistency,
    }
    write_super_resolution_report(out, subject, comparisons, shown)
    click.echo(f"report: {out / 'super_resolution.md'}")


def _pictures(folder: Path | None) -> list[Any]:
    if folder is None:
        if not (pictures := held_out_photographs()):
            raise InvalidInputError("no photographs: pip install scikit-image, which carries some, or --photographs")
        return pictures
    return list(named_pictures(folder).values())


def _judges(pipeline: Pipeline, repository: Path, independent: bool) -> list[Judge]:
    key = _models_key(repository)
    judges: list[Judge] = [StageJudge(pipeline.face_stage, key)]
    return [*judges, DlibJudge(pipeline.face_stage, key)] if independent else judges


def _subject(manifest: Manifest, data: Path) -> dict[str, Any]:
    return {
        "bundle": manifest.bundle.name,
        "weights": manifest.bundle.weights_sha256[:SHORT],
        "target": manifest.target,
        "precision": manifest.precision,
        "data": data.name,
    }


def _models_key(repository: Path) -> str:
    manifest = read_manifest(repository / FACE_MODELS)
    return f"{' '.join(manifest.detector_files.values())} {manifest.encoder_sha256}"


def _label(setting: Setting) -> str:
    where = "" if setting.interval == ALWAYS else f" at {setting.guidance_low} .. {setting.guidance_high}"
    return f"{setting.series}, {setting.steps} steps, guidance {setting.guidance_scale:g}{where}"


def _line(result: SettingResult) -> str:
    found = ", ".join(
        f"{m.judge} {m.similarity.mean:.3f}, recovered {m.recovered:.2f}"
        if m.similarity.count
        else f"{m.judge}: no face"
        for m in result.measurements
    )
    return f"{_label(result.setting)}: {found}"


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as bar:
        yield bar
