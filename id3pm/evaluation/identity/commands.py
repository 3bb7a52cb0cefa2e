"""Commands `id3pm evaluate identity`, `photographs` and `presets`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from id3pm.command_options import EXISTING_FOLDER, argument, given, numbers, option, takes
from id3pm.config import SamplerName, SamplingOptions, SpacingName
from id3pm.diffusion.plans import check_options
from id3pm.engines.manifest import Manifest
from id3pm.evaluation import files
from id3pm.evaluation.identity import report as reports
from id3pm.evaluation.identity.photographs import likenesses, people_of, summary
from id3pm.evaluation.identity.presets import measure_preset, presets_markdown, seconds_by_preset
from id3pm.evaluation.identity.study import ALWAYS, IdentityStudy, Setting, SettingResult, settings_of
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.options import DataOptions, JudgeOptions, subject_of
from id3pm.evaluation.progress import progress_bar
from id3pm.formats.picture_files import named_pictures
from id3pm.sampling.presets import PRESETS
from id3pm.sampling.request import require_network

SAMPLER, SPACING = click.Choice(get_args(SamplerName)), click.Choice(get_args(SpacingName))
PEOPLE_IN_PICTURE, SEEDS_IN_PICTURE = 8, 4


def _intervals(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """Reads timesteps such as 200-800."""
    found = []
    for text in texts:
        low, dash, high = text.partition("-")
        if not (dash and low.isdecimal() and high.isdecimal()):
            raise click.BadParameter(f"{text!r}: give the first and the last timestep, such as 200-800")
        found.append((int(low), int(high)))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityOptions(JudgeOptions, DataOptions):
    """The options of `id3pm evaluate identity`."""

    identities: int = option(type=click.IntRange(20), default=500, help="People from the data set's test split.")
    seeds: int = option(type=click.IntRange(1), default=1, help="Images of each.")
    guidance: tuple[float, ...] = option(
        callback=numbers(float, "10,25"), default="1,1.5,2,2.5,3", help="Guidance scales, at --at-steps."
    )
    steps: tuple[int, ...] = option(
        callback=numbers(int, "10,25"), default="10,25,50,250", help="Numbers of steps, at --at-guidance."
    )
    at_guidance: float = option(type=float, default=2.0, help="The guidance scale at which steps are compared.")
    at_steps: int = option(type=int, default=25, help="The steps at which guidance scales are compared.")
    samplers: tuple[SamplerName, ...] = option(
        "--sampler", type=SAMPLER, multiple=True, help="May be repeated; else the bundle's default."
    )
    spacings: tuple[SpacingName, ...] = option(
        "--spacing", type=SPACING, multiple=True, help="May be repeated.  [default: uniform]"
    )
    intervals: list[tuple[int, int]] = option(
        "--interval", callback=_intervals, multiple=True, help="Guidance only at timesteps 200-800."
    )
    super_resolution: bool = option(is_flag=True, help="Judge the 256 px images instead of the 64 px images.")

    def settings(self, manifest: Manifest) -> list[Setting]:
        """All settings that are measured.

        Raises:
            InvalidOptionError: A value breaks a rule of the sampling options, or the network cannot honour it.
        """
        samplers, spacings = self.samplers or (manifest.sampling.sampler,), self.spacings or ("uniform",)
        settings = settings_of(
            samplers, self.guidance, self.steps, self.at_guidance, self.at_steps, spacings, self.intervals
        )
        for setting in settings:
            sampling = SamplingOptions(**dataclasses.asdict(setting))
            check_options(manifest.diffusion, sampling)
            require_network(sampling, manifest.unet)
        return settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotographsOptions(JudgeOptions):
    """The options of `id3pm evaluate photographs`."""

    folder: Path = argument(type=EXISTING_FOLDER)
    seeds: int = option(type=click.IntRange(1), default=4, help="Images of each person.")
    steps: int = option(type=click.IntRange(1), default=10)
    guidance: float = option(type=float, default=2.0)
    spacing: SpacingName = option(type=SPACING, default="logsnr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetsOptions(JudgeOptions, DataOptions):
    """The options of `id3pm evaluate presets`."""

    identities: int = option(type=click.IntRange(20), default=100, help="People from the data set's test split.")
    timed: int = option(type=click.IntRange(1), default=4, help="256 px images that each preset makes for its speed.")


@click.command("identity")
@takes(IdentityOptions)
def identity_command(options: IdentityOptions) -> None:
    """Measures the identity of generated faces.

    Generates faces of people held out from training and compares their ID vectors: identity.json, identity.md,
    identity.png and faces.png in --out. One setting after the other; the report is written anew after each. What has
    been generated is kept in --out and not made again, so an interrupted evaluation goes on where it stopped.
    """
    files.new_figure(1, 1)  # fail now, not after hours, if the plot library is missing
    with options.pipeline() as pipeline:
        manifest = pipeline.base_manifest
        settings = options.settings(manifest)  # fail now for a bad value
        judges = options.judges(pipeline.face_stage)
        targets = load_targets(options.data, manifest.id_vector_model, options.identities, options.seeds)
        study = IdentityStudy(pipeline, targets, judges, options.cache(), options.super_resolution)
        _measure_settings(options, settings, study, manifest)
        images, similarities = study.faces(settings[0], PEOPLE_IN_PICTURE, SEEDS_IN_PICTURE)
        names = [judge.name for judge in judges]
        reports.plot_faces(options.out / "faces.png", targets.images[:PEOPLE_IN_PICTURE], images, names, similarities)
    click.echo(f"report: {options.out / 'identity.md'}")


def _measure_settings(
    options: IdentityOptions, settings: Sequence[Setting], study: IdentityStudy, manifest: Manifest
) -> None:
    """Measures one setting after the other and writes the report after each."""
    results: list[SettingResult] = []
    subject = subject_of(manifest, data=options.data.name, size=256 if options.super_resolution else 64)
    with progress_bar() as bar:
        for setting in settings:
            task = bar.add_task(_label(setting), total=options.identities * options.seeds)
            results.append(study.measure(setting, functools.partial(bar.advance, task)))
            bar.console.print(_line(results[-1]), soft_wrap=True)
            report = reports.IdentityReport(
                subject=subject,
                identities=options.identities,
                images_per_identity=options.seeds,
                at_guidance=options.at_guidance,
                at_steps=options.at_steps,
                baselines=study.baselines,
                results=tuple(results),
                settings=len(settings),
            )
            reports.write_identity_report(options.out, report)


@click.command("photographs")
@takes(PhotographsOptions)
def photographs_command(options: PhotographsOptions) -> None:
    """Measure whether generated faces show the people of photographs.

    FOLDER has photographs; every face in them counts as one person. Similarities of the images of each person, and of
    all other images, to the photograph: photographs.json in --out. No picture is kept.
    """
    sampling: dict[str, Any] = given(options, "steps", "spacing", guidance="guidance_scale")
    with options.pipeline() as pipeline:
        pipeline.check(super_resolution=False, **sampling)
        people = people_of(named_pictures(options.folder), pipeline.face_stage)
        generate = functools.partial(pipeline.generate_64, **sampling)
        found = likenesses(people, generate, options.judges(pipeline.face_stage), options.seeds)
        subject = subject_of(pipeline.base_manifest, data=options.folder.name)
    for one in found:
        click.echo(f"{one.name:24} {one.judge:6} {one.similarity:6.3f}, strangers {one.strangers:6.3f}")
    means = summary(found)
    for mean in means:
        click.echo(f"{'mean':24} {mean['judge']:6} {mean['similarity']:6.3f}, strangers {mean['strangers']:6.3f}")
    report = {"subject": subject, **sampling, "seeds": options.seeds, "means": means}
    report["people"] = [dataclasses.asdict(one) for one in found]
    files.write_json(options.out / "photographs.json", report)
    click.echo(f"report: {options.out / 'photographs.json'}")


@click.command("presets")
@takes(PresetsOptions)
def presets_command(options: PresetsOptions) -> None:
    """Measure speed and identity of the presets.

    Speed, identity and agreement with `paper` of every sampling preset: presets.json and presets.md in --out. What has
    been generated is kept there and not made again, so an interrupted evaluation goes on where it stopped.
    """
    identities = options.identities
    with options.pipeline() as pipeline, progress_bar() as bar:
        manifest = pipeline.base_manifest
        for name in PRESETS:
            pipeline.check(preset=name)
        judges = options.judges(pipeline.face_stage)
        targets = load_targets(options.data, manifest.id_vector_model, identities, 1)
        task = bar.add_task("speed", total=len(PRESETS))
        seconds = seconds_by_preset(pipeline, targets, options.timed, lambda name: bar.advance(task))
        study = IdentityStudy(pipeline, targets, judges, options.cache())
        results = []
        for name, preset in PRESETS.items():
            advance = functools.partial(bar.advance, bar.add_task(name, total=identities))
            results.append(measure_preset(name, preset, study, manifest, seconds[name], advance))
    subject = subject_of(manifest, data=options.data.name)
    report = {
        "schema": files.SCHEMA,
        "subject": subject,
        "identities": identities,
        "baselines": [dataclasses.asdict(base) for base in study.baselines],
        "presets": [dataclasses.asdict(result) for result in results],
    }
    files.write_json(options.out / "presets.json", report)
    text = presets_markdown(subject, identities, study.baselines, results)
    files.write_text(options.out / "presets.md", text)
    click.echo(text)


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
