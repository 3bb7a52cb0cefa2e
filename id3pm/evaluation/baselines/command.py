"""`id3pm evaluate baselines`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal, get_args

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from id3pm.errors import InvalidInputError
from id3pm.evaluation import files
from id3pm.evaluation.baselines import gaussian
from id3pm.evaluation.baselines.black_box import BlackBox, Method
from id3pm.evaluation.baselines.gan_search import GanSearch
from id3pm.evaluation.baselines.gaussian import GaussianSampling
from id3pm.evaluation.baselines.report import plot_baselines, save_images, write_baseline_report
from id3pm.evaluation.baselines.study import BaselineStudy, MethodResult, TargetSet
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.identity.photographs import named_pictures
from id3pm.evaluation.verification.fr_models import StageModel, open_models
from id3pm.formats import datasets
from id3pm.pipeline import Pipeline
from id3pm.samples import PEOPLE
from id3pm.sampling.presets import PRESETS
from id3pm.training.gan import FaceGenerator, latents

FOLDER = click.Path(path_type=Path, file_okay=False)
MethodName = Literal["gaussian", "gan"]
STRANGERS = 100
SHORT = 12  # hexadecimal digits of a hash in the report
BANK_SEED = 0  # of the embedded data set: its training people are the bank


@click.command("baselines")
@click.option("--method", "names", type=click.Choice(get_args(MethodName)), multiple=True, help="Repeatable; else all.")
@click.option("--data", type=FOLDER, default=Path("data/demo"), help="Data set whose held-out people are the targets.")
@click.option("--photographs", type=FOLDER, help="The second set of targets; else portraits that the package carries.")
@click.option("--count", type=click.IntRange(1), default=4, help="Targets of each set.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Images of each target.")
@click.option("--queries", type=click.IntRange(1), default=1600, help="Budget per image; published: 240000 and 6400.")
@click.option("--bank", type=click.IntRange(1), default=500, help="Images of the GAN's bank; published: 160000.")
@click.option("--repository", type=FOLDER, default=Path("triton_repo"), help="Built engines.")
@click.option("--fr-model", "fr_models", multiple=True, metavar="dlib|FOLDER", help="A judge beside the black box.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="How ID3PM samples; else the bundle's default.")
@click.option("--out", type=FOLDER, default=Path("out/evaluation"), help="Folder of the report.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores if not given.")
def baselines_command(
    names: tuple[MethodName, ...],
    data: Path,
    photographs: Path | None,
    count: int,
    seeds: int,
    queries: int,
    bank: int,
    repository: Path,
    fr_models: tuple[str, ...],
    preset: str | None,
    out: Path,
    threads: int | None,
) -> None:
    """What is ID3PM worth beside older ways to invert an FR model?

    Gaussian sampling and GAN search with equal query budgets, and ID3PM, on the same targets: baselines.json,
    baselines.md, a sheet of faces for each set, and the images for id3pm study make in --out. What has been made is
    kept there and not made again.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now, not after hours
    options = {} if preset is None else {"preset": preset}
    cache = Cache(out / "cache")
    with Pipeline.load(repository, threads=threads) as pipeline, _progress() as bar:
        manifest = pipeline.base_manifest
        training = StageModel(repository, threads)
        if training.name != manifest.id_vector_model:
            raise InvalidInputError(f"the face stage gives {training.name} ID vectors, not {manifest.id_vector_model}")
        judges = open_models(fr_models, training, threads)
        sets, strangers = _targets(data, photographs, count, training)
        study = BaselineStudy(training, judges, cache, seeds, strangers)
        methods = [_method(name, training, bank, cache) for name in names or get_args(MethodName)]
        results: list[MethodResult] = []
        for targets in sets:
            shown: dict[str, Any] = {}
            results.append(study.strangers(targets))
            for method in methods:
                task = bar.add_task(f"{method.name}, {targets.name}", total=len(targets.vectors) * seeds * queries)
                found, shown[method.name] = study.search(method, targets, queries, functools.partial(bar.advance, task))
                results.append(found)
            found, shown["ID3PM"] = study.id3pm(pipeline, targets, options)
            results.append(found)
            subject = {
                "bundle": manifest.bundle.name,
                "weights": manifest.bundle.weights_sha256[:SHORT],
                "targets per set": count,
                "images per target": seeds,
                "budget": queries,
                "bank": bank,
                **options,
            }
            notes = [f"Gaussian sampling: {deviation}" for deviation in gaussian.DEVIATIONS]
            write_baseline_report(out, subject, notes, results)
            name = targets.name.replace(" ", "_")
            plot_baselines(out / f"baselines_{name}.png", targets, shown)
            save_images(out / "baseline_images" / name, targets, shown)
    click.echo((out / "baselines.md").read_text(encoding="utf-8"))


def _targets(
    data: Path, photographs: Path | None, count: int, training: StageModel
) -> tuple[list[TargetSet], NDArray[np.uint8]]:
    """Held-out people and people of photographs, and pictures of strangers.

    Raises:
        InvalidInputError: The data set is too small, or has other ID vectors; or a photograph shows no face.
    """
    if (found := datasets.describe(data).get("id_vector_model")) != training.name:
        raise InvalidInputError(f"the data set has ID vectors of {found}: this bundle takes those of {training.name}")
    split = datasets.load(data, "test")
    if len(split["index"]) < count + 2:
        raise InvalidInputError(f"{count} targets and strangers: the data set holds out {len(split['index'])} people")
    pictures = named_pictures(PEOPLE if photographs is None else photographs)
    chosen = dict(list(pictures.items())[:count])
    vectors = training.embed(list(chosen.values()))
    for name, vector in zip(chosen, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise InvalidInputError(f"{name} shows no face that can be found: take it out of the folder")
    sets = [
        TargetSet("held-out people", list(split["images"][:count]), split["vectors"][:count]),
        TargetSet("photographs", list(chosen.values()), vectors),
    ]
    return sets, split["images"][count : count + STRANGERS]


def _method(name: MethodName, training: StageModel, bank: int, cache: Cache) -> Method:
    if name == "gaussian":
        return GaussianSampling()
    generator = FaceGenerator()
    # Every 20th face of the embedded data set is held out from training: none of these is in the bank.
    indices = [index for index in range(2 * bank) if index % datasets.TEST_EVERY][:bank]
    z = latents(BANK_SEED, indices)
    key = {"bank": bank, "seed": BANK_SEED, "generator": generator.weights_sha256, "black box": training.key}
    vectors = cache.array(key, lambda: BlackBox(training.embed).vectors(list(generator.images(z)), aligned=False))
    return GanSearch(generator, z, vectors, generator.weights_sha256[:SHORT])


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False))
