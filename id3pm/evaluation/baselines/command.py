"""`id3pm evaluate baselines`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import click
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from id3pm.command_options import FOLDER, option, takes
from id3pm.engines.manifest import Manifest
from id3pm.errors import InvalidInputError
from id3pm.evaluation import files
from id3pm.evaluation.baselines import gaussian
from id3pm.evaluation.baselines.black_box import BlackBox, Method
from id3pm.evaluation.baselines.gan_search import GanSearch
from id3pm.evaluation.baselines.gaussian import GaussianSampling
from id3pm.evaluation.baselines.report import plot_baselines, save_images, write_baseline_report
from id3pm.evaluation.baselines.study import ID3PM, BaselineStudy, MethodResult, TargetSet
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.files import SHORT
from id3pm.evaluation.options import DataOptions, PairModelOptions, PresetOptions
from id3pm.evaluation.progress import progress_bar
from id3pm.evaluation.verification.fr_models import StageModel
from id3pm.formats import datasets
from id3pm.formats.picture_files import named_pictures
from id3pm.pipeline import Pipeline
from id3pm.samples import PEOPLE
from id3pm.training.gan import FaceGenerator, latents

MethodName = Literal["gaussian", "gan"]
STRANGERS = 100
BANK_SEED = 0  # of the embedded data set: its training people are the bank


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineOptions(DataOptions, PairModelOptions, PresetOptions):
    """The options of `id3pm evaluate baselines`."""

    names: tuple[MethodName, ...] = option(
        "--method", type=click.Choice(get_args(MethodName)), multiple=True, help="Repeatable; else all."
    )
    data: Path = option(
        type=FOLDER, default=Path("data/demo"), help="Data set; people held out from training are the targets."
    )
    photographs: Path | None = option(
        type=FOLDER, help="The second set of targets; else portraits that the package carries."
    )
    count: int = option(type=click.IntRange(1), default=4, help="Targets of each set.")
    seeds: int = option(type=click.IntRange(1), default=1, help="Images of each target.")
    queries: int = option(type=click.IntRange(1), default=1600, help="Budget per image; published: 240000 and 6400.")
    bank: int = option(type=click.IntRange(1), default=500, help="Images of the GAN's bank; published: 160000.")

    def subject(self, manifest: Manifest) -> dict[str, Any]:
        """For the head of the report."""
        return {
            "bundle": manifest.bundle.name,
            "weights": manifest.bundle.weights_sha256[:SHORT],
            "targets per set": self.count,
            "images per target": self.seeds,
            "budget": self.queries,
            "bank": self.bank,
            **self.sampling,
        }


@click.command("baselines")
@takes(BaselineOptions)
def baselines_command(options: BaselineOptions) -> None:
    """What is ID3PM worth beside older ways to invert an FR model?

    Gaussian sampling and GAN search with equal query budgets, and ID3PM, on the same targets: baselines.json,
    baselines.md, a sheet of faces for each set, and the images for id3pm study make in --out. What has been made is
    kept there and not made again.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now, not after hours
    cache, notes = options.cache(), [f"Gaussian sampling: {deviation}" for deviation in gaussian.DEVIATIONS]
    with options.pipeline() as pipeline, progress_bar() as bar:
        training, judges = options.models(pipeline.base_manifest)
        sets, strangers = _targets(options, training)
        study = BaselineStudy(training, judges, cache, options.seeds, strangers)
        methods = [_method(name, training, options.bank, cache) for name in options.names or get_args(MethodName)]
        results: list[MethodResult] = []
        for targets in sets:
            found, shown = _compared(options, study, targets, methods, pipeline, bar)
            results += found
            write_baseline_report(options.out, options.subject(pipeline.base_manifest), notes, results)
            name = targets.name.replace(" ", "_")
            plot_baselines(options.out / f"baselines_{name}.png", targets, shown)
            save_images(options.out / "baseline_images" / name, targets, shown)
    click.echo((options.out / "baselines.md").read_text(encoding="utf-8"))


def _compared(
    options: BaselineOptions,
    study: BaselineStudy,
    targets: TargetSet,
    methods: Sequence[Method],
    pipeline: Pipeline,
    bar: Progress,
) -> tuple[list[MethodResult], dict[str, Sequence[NDArray[np.uint8]]]]:
    """One set of targets: other people, every method and ID3PM; and the images by method."""
    results = [study.strangers(targets)]
    images: dict[str, Sequence[NDArray[np.uint8]]] = {}
    for method in methods:
        total = len(targets.vectors) * options.seeds * options.queries
        advance = functools.partial(bar.advance, bar.add_task(f"{method.name}, {targets.name}", total=total))
        found, images[method.name] = study.search(method, targets, options.queries, advance)
        results.append(found)
    found, images[ID3PM] = study.id3pm(pipeline, targets, options.sampling)
    return [*results, found], images


def _targets(options: BaselineOptions, training: StageModel) -> tuple[list[TargetSet], NDArray[np.uint8]]:
    """Held-out people and people of photographs, and pictures of strangers.

    Raises:
        InvalidInputError: The data set is too small, or has other ID vectors; or a photograph shows no face.
    """
    data, count = options.data, options.count
    if (found := datasets.describe(data).get("id_vector_model")) != training.name:
        raise InvalidInputError(f"the data set has ID vectors of {found}: this bundle takes those of {training.name}")
    split = datasets.load(data, "test")
    if len(split["index"]) < count + 2:
        raise InvalidInputError(f"{count} targets and strangers: the data set holds out {len(split['index'])} people")
    pictures = named_pictures(options.photographs or PEOPLE)
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
