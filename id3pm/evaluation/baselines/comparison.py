"""A comparison of methods from the options of `id3pm baseline compare` to its report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines import methods
from id3pm.evaluation.baselines.black_box import Direct, Floats, Search
from id3pm.evaluation.baselines.compare_options import METHODS, CompareOptions
from id3pm.evaluation.baselines.interpolation import Smoothness, smoothness, way
from id3pm.evaluation.baselines.judging import Judges, TargetSet
from id3pm.evaluation.baselines.report import BaselineReport, MethodResult, write_baseline_report
from id3pm.evaluation.baselines.sheets import plot_interpolations, plot_methods, save_images
from id3pm.evaluation.baselines.spread import LEAST_SEEDS, Spread
from id3pm.evaluation.baselines.study import Made, Maker, OnImages
from id3pm.evaluation.baselines.trained import Id3pm, TrainedNetwork
from id3pm.evaluation.options import subject_of
from id3pm.evaluation.quality.distances import frechet_distance
from id3pm.evaluation.quality.diversity import Diversity, landmark_look
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.inception import Inception
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.evaluation.quality.study import FeatureNetwork
from id3pm.evaluation.verification.fr_models import FaceEngineModel
from id3pm.formats import datasets
from id3pm.formats.picture_files import named_pictures
from id3pm.pipeline import Pipeline
from id3pm.samples import PEOPLE

TRAINED = ("nbnet", "vec2face")
STRANGERS, OTHERS = 100, "other people"


@dataclasses.dataclass(frozen=True)
class _Method:
    """How a method makes images.

    Attributes:
        name: For reports.
        make: (ID vectors, seeds, on_done) -> images.
        asks: It asks queries.
        one_to_many: Another seed gives another picture.
    """

    name: str
    make: Callable[[Floats, int, OnImages], Made]
    asks: bool
    one_to_many: bool


class FeatureDistance:
    """See `id3pm.evaluation.baselines.judging.Distance`."""

    def __init__(self, inception: Path | None) -> None:
        self.network: FeatureNetwork = EfficientNetLite0() if inception is None else Inception(inception)
        self.name = f"{self.network.frechet_name}, {self.network.name}"

    def __call__(self, images: Sequence[NDArray[np.uint8]], reference: Sequence[NDArray[np.uint8]]) -> float:
        """See `Distance`."""
        made, real = (self.network.features(np.stack(each)).astype(np.float64) for each in (images, reference))
        return frechet_distance(made, real)


class Comparison:
    """One run of the command.

    Args:
        options: Of the command.
        pipeline: Has the bundle.
        bar: Shows progress.

    Raises:
        InvalidInputError: Targets, weights or models do not fit the bundle.
    """

    def __init__(self, options: CompareOptions, pipeline: Pipeline, bar: Progress) -> None:
        self._options, self._bar = options, bar
        pipeline.check(super_resolution=False, **options.sampling)
        manifest = pipeline.base_manifest
        self._training, models = options.models(manifest)
        self._cache = options.cache()
        self._subject: dict[str, Any] = subject_of(
            manifest,
            **{
                "targets per set": options.count,
                "images per target": options.seeds,
                "of searches": options.search_seeds,
                "budget": options.queries,
                "bank": options.bank,
                **options.sampling,
                **({"searches": "as in their published code"} if options.authors_code else {}),
            },
        )
        self._sets, self._strangers = _targets(options, self._training)
        self._notes: list[str] = []
        names = options.methods or METHODS
        direct: list[Direct] = [network for name in names if name in TRAINED for network in self._network(name)]
        direct.append(Id3pm(pipeline, options.sampling))
        distance = FeatureDistance(options.inception)
        self._judges = Judges(models, self._strangers, distance)
        self._quality = distance.name
        self._spread = Spread(
            judges=self._judges,
            network=distance.network,
            look=landmark_look(pipeline.face_stage, options.threads, self._notes),
            lpips=None if options.lpips_backbone is None else Lpips(options.lpips_backbone),
        )
        self._diversity: dict[str, dict[str, Diversity]] = {}
        maker = Maker(self._training, self._cache, options.queries)
        searches = [self._search(name) for name in names if name not in TRAINED]
        self._methods = [
            *(_Method(each.name, functools.partial(maker.search, each), True, True) for each in searches),
            *(_Method(each.name, functools.partial(maker.direct, each), False, each.one_to_many) for each in direct),
        ]

    def run(self) -> None:
        """Makes and judges everything; the report is written anew after each method."""
        results: list[MethodResult] = []
        ways: list[Smoothness] = []
        for targets in self._sets:
            shared = targets.first(self._options.count)
            images: dict[str, list[NDArray[np.uint8]]] = {}
            rows: dict[str, list[NDArray[np.uint8]]] = {}
            nothing = float("nan")
            others = self._judges.strangers(shared)
            results.append(
                MethodResult(
                    targets=targets.name,
                    method=OTHERS,
                    judgement=others,
                    queries=nothing,
                    seconds=nothing,
                    processor_seconds=nothing,
                )
            )
            for method in self._methods:
                people = shared if method.asks else targets
                made = self._all(method, people)
                judgement = self._judges.judge(people, made.images, aligned=made.aligned, shared=len(shared.vectors))
                results.append(
                    MethodResult(
                        targets=targets.name,
                        method=method.name,
                        judgement=judgement,
                        queries=made.queries,
                        seconds=made.seconds,
                        processor_seconds=made.processor_seconds,
                    )
                )
                images[method.name] = made.images[: len(shared.vectors)]
                self._diverse(shared, method, images[method.name], made.aligned)
                rows[method.name] = self._ways(method, shared, ways)
                self._write(results, ways)
            name = targets.name.replace(" ", "_")
            plot_methods(self._options.out / f"baselines_{name}.png", shared, images)
            if any(rows.values()):
                plot_interpolations(self._options.out / f"interpolations_{name}.png", shared, rows)
            save_images(self._options.out / "baseline_images" / name, shared, images)

    def _all(self, method: _Method, people: TargetSet) -> Made:
        """All seeds of the targets that all methods have, and one seed of the people behind them."""
        count, options = self._options.count, self._options
        first = self._made(method, people.first(count), options.search_seeds if method.asks else options.seeds, "")
        rest = TargetSet(people.name, people.images[count:], people.vectors[count:])
        if not len(rest.vectors):
            return first
        return first.with_more(self._made(method, rest, 1, ", more people"))

    def _diverse(self, targets: TargetSet, method: _Method, images: list[NDArray[np.uint8]], aligned: bool) -> None:
        """Measures the diversity of a one-to-many method; before the first one, that of real pictures."""
        seeds = len(images[0])
        if not method.one_to_many or seeds < LEAST_SEEDS:
            return
        if targets.name not in self._diversity:
            self._diversity[targets.name] = self._spread.references(targets, self._strangers, seeds)
        of_set = self._diversity[targets.name]
        of_set[f"{method.name}, {seeds} images"] = self._spread.of_method(targets, images, aligned=aligned)

    def _ways(self, method: _Method, targets: TargetSet, found: list[Smoothness]) -> list[NDArray[np.uint8]]:
        """Interpolations of a method; what was measured is added to `found`."""
        if self._options.interpolation < 2:
            return []
        rows = []
        for pair in range(min(self._options.pairs, len(targets.vectors) // 2)):
            first, second = targets.vectors[2 * pair : 2 * pair + 2]
            vectors = way(first, second, self._options.interpolation)
            people = TargetSet(targets.name, [], vectors)
            made = self._made(method, people, 1, ", interpolation")
            images = np.concatenate(made.images)
            found.append(smoothness(targets.name, method.name, vectors, images, self._judges, aligned=made.aligned))
            rows.append(images)
        return rows

    def _made(self, method: _Method, targets: TargetSet, seeds: int, what: str) -> Made:
        images = len(targets.vectors) * (seeds if method.one_to_many else 1)
        task = self._bar.add_task(
            f"{method.name}, {targets.name}{what}", total=images * (self._options.queries if method.asks else 1)
        )
        return method.make(targets.vectors, seeds, functools.partial(self._bar.advance, task))

    def _write(self, results: Sequence[MethodResult], ways: Sequence[Smoothness]) -> None:
        report = BaselineReport(
            subject=self._subject,
            judges=self._judges.names,
            quality=self._quality,
            notes=self._notes,
            results=results,
            ways=ways,
            diversity=self._diversity,
            features=self._spread.network.name,
        )
        write_baseline_report(self._options.out, report)

    def _network(self, name: str) -> list[TrainedNetwork]:
        """A trained network; none where its weights are missing and it was not asked for by name."""
        file = self._options.weights / f"{name}.safetensors"
        if not file.exists() and name not in self._options.methods:
            self._notes.append(f"{name} was left out: there are no weights {file} (id3pm baseline train {name})")
            return []
        return [methods.open_network(name, self._options.weights, self._training.name, self._notes)]

    def _search(self, name: str) -> Search:
        options = self._options
        if name == "gaussian":
            return methods.open_gaussian(self._notes, authors_code=options.authors_code)
        own = options.generator
        self._subject["generator"] = "GAN of the embedded data set" if own is None else own.name
        task = self._bar.add_task("bank of the GAN", total=options.bank)
        return methods.open_gan_search(
            self._training,
            self._cache,
            options.bank,
            own,
            authors_code=options.authors_code,
            threads=options.threads,
            on_images=functools.partial(self._bar.advance, task),
        )


def _targets(options: CompareOptions, training: FaceEngineModel) -> tuple[list[TargetSet], NDArray[np.uint8]]:
    """Held-out people and people of photographs, and pictures of strangers.

    Raises:
        InvalidInputError: The data set is too small, or has other ID vectors; or a photograph shows no face.
    """
    data, count = options.data, options.count
    if (found := datasets.describe(data).get("id_vector_model")) != training.name:
        raise InvalidInputError(f"the data set has ID vectors of {found}: this bundle takes those of {training.name}")
    split = datasets.load(data, "test")
    people = len(split["index"])
    if people < count + 2:
        raise InvalidInputError(f"{count} targets and strangers: the data set holds out {people} people")
    many = min(max(options.many, count), people - 2)
    pictures = named_pictures(options.photographs or PEOPLE)
    chosen = dict(list(pictures.items())[: max(options.many, count)])
    vectors = training.embed(list(chosen.values()))
    for name, vector in zip(chosen, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise InvalidInputError(f"{name} shows no face that can be found: take it out of the folder")
    sets = [
        TargetSet("held-out people", list(split["images"][:many]), split["vectors"][:many], at_home=True),
        TargetSet("photographs", list(chosen.values()), vectors),
    ]
    return sets, split["images"][many : many + STRANGERS]
