"""All methods on the same targets: similarity by every judge, queries and seconds per face, in one run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.black_box import BlackBox, Floats, Method
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.verification.fr_models import PairModel, StageModel
from id3pm.pipeline import Pipeline

ID3PM, STRANGERS = "ID3PM", "other people"
OnQueries = Callable[[int], object]


@dataclasses.dataclass(frozen=True, eq=False)
class TargetSet:
    """People to reconstruct.

    Attributes:
        name: For reports.
        images: Their pictures, uint8 [H, W, 3] each.
        vectors: Their ID vectors, float32 [N, D].
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    vectors: Floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One method on one set.

    Attributes:
        targets: Name of the set.
        method: Its name.
        similarity: By judge: mean cosine of image and target over the images with a face; NaN without any.
        no_face: By judge: share of the images without a face.
        queries: Per face.
        seconds: Per face, on the machine of the run.
    """

    targets: str
    method: str
    similarity: dict[str, float]
    no_face: dict[str, float]
    queries: float
    seconds: float


class BaselineStudy:
    """Some targets, some judges; what has been made is kept, so an interrupted study goes on.

    Args:
        training: The FR model whose ID vectors are inverted: the black box.
        judges: FR models that compare; the training one first.
        cache: Where images are kept.
        seeds: Images of each target.
        strangers: Pictures of other people, uint8 [N, S, S, 3]: the mean vector of judges that need one, and what a
            wrong face scores.
    """

    def __init__(
        self,
        training: StageModel,
        judges: Sequence[PairModel],
        cache: Cache,
        seeds: int,
        strangers: NDArray[np.uint8],
    ) -> None:
        self._training = training
        self._judges = judges
        self._cache = cache
        self._seeds = seeds
        self._strangers = [judge.views(list(strangers), False)[:, 0] for judge in judges]
        self._centres = [
            np.nanmean(seen, axis=0) if judge.centred else np.zeros(seen.shape[1], np.float32)
            for judge, seen in zip(judges, self._strangers, strict=True)
        ]

    def strangers(self, targets: TargetSet) -> MethodResult:
        """What pictures of other people score."""
        similarity, no_face = {}, {}
        for number, judge in enumerate(self._judges):
            cosines = self._targets(number, targets) @ self._directions(number, self._strangers[number]).T
            similarity[judge.name], no_face[judge.name] = _summary(cosines)
        return MethodResult(
            targets=targets.name,
            method=STRANGERS,
            similarity=similarity,
            no_face=no_face,
            queries=float("nan"),
            seconds=float("nan"),
        )

    def search(
        self, method: Method, targets: TargetSet, budget: int, on_queries: OnQueries = lambda count: None
    ) -> tuple[MethodResult, list[NDArray[np.uint8]]]:
        """A method that asks the black box, for every target and seed.

        Args:
            method: The method.
            targets: The people.
            budget: Most queries for one face.
            on_queries: Called with the number of queries whenever some were made.

        Returns:
            What was found, and the images [N, seeds, H, W, 3], target by target.
        """
        images: list[NDArray[np.uint8]] = []
        numbers: list[tuple[float, float]] = []
        for vector in targets.vectors:
            found, spent = zip(
                *(self._made(method, vector, budget, seed, on_queries) for seed in range(self._seeds)), strict=True
            )
            images.append(np.stack(found))
            numbers += spent
        queries, seconds = np.mean(numbers, axis=0)
        return self._judged(targets, method.name, images, method.aligned, float(queries), float(seconds)), images

    def id3pm(
        self, pipeline: Pipeline, targets: TargetSet, options: Mapping[str, Any]
    ) -> tuple[MethodResult, list[NDArray[np.uint8]]]:
        """ID3PM itself, which asks the black box nothing."""
        started = time.perf_counter()
        rows = np.repeat(targets.vectors, self._seeds, axis=0)
        seeds = list(range(self._seeds)) * len(targets.vectors)
        made = pipeline.generate_64(rows, seeds, **options)
        seconds = (time.perf_counter() - started) / len(rows)
        images = list(made.reshape(len(targets.vectors), self._seeds, *made.shape[1:]))
        return self._judged(targets, ID3PM, images, False, 0.0, seconds), images

    def _made(
        self, method: Method, vector: Floats, budget: int, seed: int, on_queries: OnQueries
    ) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """Image, and its queries and seconds."""
        key = {
            "method": method.key,
            "black box": self._training.key,
            "vector": vector.tolist(),
            "budget": budget,
            "seed": seed,
        }
        numbers: list[float] = []

        def run() -> NDArray[np.uint8]:
            started = time.perf_counter()
            found = method.reconstruct(vector, BlackBox(self._training.embed), budget, seed, on_queries)
            numbers[:] = [found.queries, time.perf_counter() - started]
            self._cache.array({**key, "of": "queries and seconds"}, lambda: np.array(numbers))
            return found.image

        image = self._cache.array({**key, "of": "image"}, run)
        spent = self._cache.array({**key, "of": "queries and seconds"}, lambda: np.array(numbers))
        return image, (float(spent[0]), float(spent[1]))

    def _judged(
        self,
        targets: TargetSet,
        method: str,
        images: Sequence[NDArray[np.uint8]],
        aligned: bool,
        queries: float,
        seconds: float,
    ) -> MethodResult:
        similarity, no_face = {}, {}
        for number, judge in enumerate(self._judges):
            made = judge.views([image for of_target in images for image in of_target], aligned)[:, 0]
            wanted = np.repeat(self._targets(number, targets), self._seeds, axis=0)
            cosines = (wanted * self._directions(number, made)).sum(axis=1)
            similarity[judge.name], no_face[judge.name] = _summary(cosines)
        return MethodResult(
            targets=targets.name,
            method=method,
            similarity=similarity,
            no_face=no_face,
            queries=queries,
            seconds=seconds,
        )

    def _targets(self, judge: int, targets: TargetSet) -> Floats:
        """Directions of the targets. The training model is held to the ID vectors, as in `id3pm evaluate identity`."""
        seen = self._judges[judge].views(targets.images, False)[:, 0] if judge else targets.vectors
        return self._directions(judge, seen)

    def _directions(self, judge: int, vectors: Floats) -> Floats:
        centred = vectors - self._centres[judge]
        unit: Floats = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return unit


def _summary(cosines: Floats) -> tuple[float, float]:
    """Mean of those that are known, and the share of the others."""
    seen = np.isfinite(cosines)
    return (float(cosines[seen].mean()) if seen.any() else float("nan")), float(np.mean(~seen))
