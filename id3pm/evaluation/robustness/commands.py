"""Command `id3pm analyse`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from id3pm.command_options import EXISTING, EXISTING_FILE, FOLDER, REPOSITORY, argument, given, option, takes
from id3pm.errors import InvalidInputError, MissingExtraError
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.files import SHORT
from id3pm.evaluation.judges import Judge, StageJudge
from id3pm.evaluation.progress import progress_bar
from id3pm.evaluation.robustness import thresholds as thresholds_of
from id3pm.evaluation.robustness.contact_sheet import write_sheet
from id3pm.evaluation.robustness.report import About, load_template, write_report
from id3pm.evaluation.robustness.study import Block, Model, Subject, study
from id3pm.evaluation.robustness.subjects import gallery, named_apart, person
from id3pm.evaluation.robustness.summary import readings, summarise
from id3pm.evaluation.robustness.thresholds import Threshold
from id3pm.evaluation.robustness.variants import VARIANTS
from id3pm.face.manifest import PublishedThreshold, read_manifest
from id3pm.formats import datasets as shards
from id3pm.formats.picture_files import picture_files
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    """The options of `id3pm analyse`."""

    photos: tuple[Path, ...] = argument(nargs=-1, required=True, type=EXISTING)
    repositories: tuple[Path, ...] = option(
        "--repository",
        type=REPOSITORY,
        multiple=True,
        default=(Path("triton_repo"),),
        help="Built engines of one face-recognition model; repeat it to compare several.",
    )
    same_person: Path | None = option(
        type=EXISTING, help="More photographs of the person in the one PHOTO; a file or a folder."
    )
    drawn: Path | None = option(
        "--drawings", type=EXISTING, help="Drawings, paintings or renderings of that person; a file or a folder."
    )
    pictures: tuple[Path, ...] = option(
        "--picture",
        type=EXISTING,
        multiple=True,
        help="Drawing, rendering or other picture of no particular person, or a folder of them; repeatable.",
    )
    families: tuple[str, ...] = option(
        "--family",
        type=click.Choice(list(VARIANTS)),
        multiple=True,
        help="Only these changes; repeatable.  [default: all]",
    )
    out: Path = option(type=FOLDER, default=Path("out/analysis"), help="Folder of the report.")
    data: Path | None = option(type=FOLDER, help="Data set whose held-out people give the thresholds.")
    people: int = option(type=click.IntRange(20), default=500, help="How many of them.")
    thresholds_file: Path | None = option(
        "--thresholds",
        type=EXISTING_FILE,
        help="thresholds.json of an earlier run with --data; else those that come with the package.",
    )
    seed: int = option(type=click.IntRange(0), default=0, help="Of every image.")
    preset: str | None = option(
        type=click.Choice(list(PRESETS)), help="How images are sampled.  [default: fast; a student's own way]"
    )
    steps: int | None = option(type=click.IntRange(1), help="Of the 64 px loop; else the preset's.")
    guidance_scale: float | None = option(type=click.FloatRange(1, 10), help="Else the preset's.")
    super_resolution: bool = option(is_flag=True, help="Generate 256 px images.")
    independent: bool | None = option(
        "--independent/--no-independent", default=None, help="Also judge with dlib's network.  [default: if installed]"
    )
    threads: int | None = option(type=click.IntRange(1), help="CPU threads; all cores if not given.")

    def sampling(self, pipeline: Pipeline) -> dict[str, Any]:
        """The sampling options that were given, or the default preset: a student has none.

        Raises:
            InvalidOptionError: The pipeline's bundle cannot honour them.
        """
        options = given(self, "preset", "steps", "guidance_scale")
        if self.preset is None and pipeline.base_manifest.diffusion.student_timesteps is None:
            options["preset"] = "fast"
        pipeline.check(super_resolution=self.super_resolution, **options)
        return options

    def files(self) -> tuple[list[Path], list[Path], list[Path]]:
        """The photographs; and where there is one, more photographs and drawings of its person.

        Raises:
            InvalidInputError: A folder has no pictures, or there are several photographs beside pictures of one person.
        """
        files = picture_files(self.photos)
        more, drawings = (picture_files([] if path is None else [path]) for path in (self.same_person, self.drawn))
        for name, others in (("--same-person", more), ("--drawings", drawings)):
            if others and len(files) != 1:
                raise InvalidInputError(
                    f"{name} with {len(files)} photographs: give the one PHOTO whose person it shows"
                )
        return files, more, drawings


@click.command("analyse")
@takes(AnalysisOptions)
def analyse_command(options: AnalysisOptions) -> None:
    """Measure what a face-recognition model is robust against.

    Every person in PHOTO (files or folders) is shown to it in other light, pose and expression, with parts of the face
    hidden, with noise, and as drawings; each ID vector is inverted with the same seed. report.html, analysis.json and
    one PNG per person in --out give the angular distances against the model's verification threshold.
    """
    if options.data is not None and options.thresholds_file is not None:
        raise click.UsageError("--data measures thresholds, --thresholds reads them: give one")
    load_template()  # fail now, not after minutes, if a library is missing
    notes: list[str] = []
    files, more, drawings = options.files()
    with ExitStack() as stack:
        known = thresholds_of.read(options.thresholds_file)
        loaded = [
            stack.enter_context(Pipeline.load(repository, threads=options.threads))
            for repository in options.repositories
        ]
        sampling = [options.sampling(pipeline) for pipeline in loaded]  # fail now for a bad value
        stage, families = loaded[0].face_stage, options.families or tuple(VARIANTS)
        subjects = [person(file, stage, families, more, drawings) for file in files]
        subjects = named_apart(subjects + gallery(picture_files(options.pictures), stage))
        options.out.mkdir(parents=True, exist_ok=True)
        bar = stack.enter_context(progress_bar())
        models = _models(options, loaded, known, notes, bar)
        blocks, report = _study(options, models, sampling, subjects, notes, bar)
    for line in (*readings(summarise(blocks)), *notes):
        click.echo(line)
    click.echo(f"report: {report}")


def _models(
    options: AnalysisOptions,
    loaded: Sequence[Pipeline],
    known: dict[str, Threshold],
    notes: list[str],
    bar: Progress,
) -> list[Model]:
    """The models with their judges and thresholds; what is missing goes into `notes`."""
    judges = [
        _judges(pipeline, repository, options.independent, notes)
        for pipeline, repository in zip(loaded, options.repositories, strict=True)
    ]
    if options.data is not None:
        known = _measured(judges, options.data, options.people, bar)
        thresholds_of.write(options.out / "thresholds.json", known)
    names = _names(loaded, options.repositories)
    return [
        _model(name, pipeline, found, known, notes) for name, pipeline, found in zip(names, loaded, judges, strict=True)
    ]


def _study(
    options: AnalysisOptions,
    models: Sequence[Model],
    sampling: Sequence[dict[str, Any]],
    subjects: Sequence[Subject],
    notes: list[str],
    bar: Progress,
) -> tuple[list[Block], Path]:
    """Studies one subject after the other; the report is written anew after each."""
    shown = {**sampling[0], "size": 256 if options.super_resolution else 64}
    about = About([_about(model) for model in models], options.seed, shown, notes)
    blocks: list[Block] = []
    for subject in subjects:
        task = bar.add_task(subject.name, total=len(models) * len(subject.pictures))
        advance = functools.partial(bar.advance, task)
        of_subject = [
            study(model, subject, options.seed, how, options.super_resolution, advance)
            for model, how in zip(models, sampling, strict=True)
        ]
        blocks += of_subject
        write_sheet(options.out / f"{subject.name}.png", of_subject, options.seed)
        report = write_report(options.out, blocks, about)
    return blocks, report


@dataclasses.dataclass(frozen=True)
class _Named:
    """A judge, the key of its measured threshold, and its published threshold."""

    key: str
    judge: Judge
    published: PublishedThreshold | None


def _judges(pipeline: Pipeline, repository: Path, independent: bool | None, notes: list[str]) -> list[_Named]:
    """The model itself and, if wanted and installed, an independent judge."""
    manifest = read_manifest(repository / "face_embedding/1/engine")
    source, stage = manifest.source_sha256, pipeline.face_stage
    own = f"{stage.id_vector_model} {source}"
    judges = [_Named(own, StageJudge(stage, source), manifest.published_threshold)]
    if independent is not False:
        try:
            judges.append(_Named(f"dlib resnet_v1, faces by {own}", DlibJudge(stage, source), None))
        except MissingExtraError as error:
            if independent:
                raise
            notes.append(f"no independent judge: {error}")
    return judges


def _measured(judges: Sequence[Sequence[_Named]], data: Path, people: int, bar: Progress) -> dict[str, Threshold]:
    images = shards.load(data, "test")["images"]
    if len(images) < people:
        raise InvalidInputError(f"--people {people}: {data} holds out {len(images)}")
    wanted = {named.key: named for found in judges for named in found}
    task = bar.add_task("thresholds", total=len(wanted))
    measured = {}
    for key, named in wanted.items():
        measured[key] = thresholds_of.measure(named.judge, key, images[:people], data.resolve().name, named.published)
        bar.advance(task)
    return measured


def _names(loaded: Sequence[Pipeline], repositories: Sequence[Path]) -> list[str]:
    """Names of the face-recognition models; bundle or folder are added where names are the same."""
    plain = [pipeline.face_stage.id_vector_model for pipeline in loaded]
    bundles = [f"{name} ({pipeline.base_manifest.bundle.name})" for name, pipeline in zip(plain, loaded, strict=True)]
    folders = [f"{name} ({folder})" for name, folder in zip(plain, repositories, strict=True)]
    for names in (plain, bundles, folders):
        if len(set(names)) == len(names):
            return names
    raise InvalidInputError("--repository: the same folder twice")


def _model(
    name: str, pipeline: Pipeline, judges: Sequence[_Named], known: dict[str, Threshold], notes: list[str]
) -> Model:
    kept = []
    for named in judges:
        if named.key not in known and named.judge.centred:
            notes.append(
                f"{name}: {named.judge.name} is left out; its angles need a mean vector, which --data measures"
            )
            continue
        if named.key not in known:
            notes.append(
                f"{name}: no measured threshold is known, so no picture is marked as the same person or another; "
                "--data measures one"
            )
        kept.append(named)
    return Model(
        name=name,
        bundle=pipeline.base_manifest.bundle.name,
        id_vector_model=pipeline.face_stage.id_vector_model,
        pipeline=pipeline,
        judges=tuple(named.judge for named in kept),
        thresholds=tuple(known.get(named.key) for named in kept),
        published=tuple(named.published for named in kept),
    )


def _about(model: Model) -> dict[str, str]:
    manifest = model.pipeline.base_manifest
    return {
        "name": model.name,
        "id_vector_model": model.id_vector_model,
        "bundle": model.bundle,
        "weights": manifest.bundle.weights_sha256[:SHORT],
        "engine": f"{manifest.target} {manifest.precision}",
    }
