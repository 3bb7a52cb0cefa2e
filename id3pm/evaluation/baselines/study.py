"""All methods on the same targets, in one run; what has been made is kept, so an interrupted study goes on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.black_box import BlackBox, Direct, Floats, Search
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.verification.fr_models import FaceEngineModel

CHUNK = 16  # images of a method without queries between two saves
OnImages = Callable[[int], object]


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """What a method made of some ID vectors.

    Attributes:
        images: For each vector uint8 [seeds, H, W, 3]; one seed where the method has one picture for one vector.
        queries: Per image.
        seconds: Per image, on the machine of the run.
        processor_seconds: Per image, of all threads of this process: what other programs do does not count.
        aligned: The images are crops of 112 px.
    """

    images: list[NDArray[np.uint8]]
    queries: float
    seconds: float
    processor_seconds: float
    aligned: bool

    def with_more(self, more: Made) -> Made:
        """Those of other vectors behind these."""
        counts = [sum(map(len, made.images)) for made in (self, more)]
        queries, seconds, processor = (
            float(np.average([getattr(self, name), getattr(more, name)], weights=counts))
            for name in ("queries", "seconds", "processor_seconds")
        )
        return Made([*self.images, *more.images], queries, seconds, processor, self.aligned)


class Maker:
    """Makes images by any method.

    Args:
        training: The FR model whose ID vectors are inverted: the black box.
        cache: Where images are kept.
        budget: Most queries for one image.
    """

    def __init__(self, training: FaceEngineModel, cache: Cache, budget: int) -> None:
        self._training = training
        self._cache = cache
        self._budget = budget

    def search(self, method: Search, vectors: Floats, seeds: int, on_queries: OnImages = lambda count: None) -> Made:
        """By queries, for every vector and seed.

        Args:
            method: The method.
            vectors: ID vectors [N, D].
            seeds: Images of each.
            on_queries: Called with the number of queries that are done whenever some are.
        """
        found = [[self._searched(method, vector, seed, on_queries) for seed in range(seeds)] for vector in vectors]
        queries, seconds, processor = np.mean([spent for of_vector in found for _, spent in of_vector], axis=0)
        images = [np.stack([image for image, _ in of_vector]) for of_vector in found]
        return Made(images, float(queries), float(seconds), float(processor), method.aligned)

    def direct(self, method: Direct, vectors: Floats, seeds: int, on_images: OnImages = lambda count: None) -> Made:
        """Without queries.

        Args:
            method: The method.
            vectors: ID vectors [N, D].
            seeds: Images of each, where another seed gives another one.
            on_images: Called with the number of images whenever some are done.
        """
        seeds = seeds if method.one_to_many else 1
        rows, numbers = np.repeat(vectors, seeds, axis=0), list(range(seeds)) * len(vectors)
        parts, spent = [], np.zeros(2)
        for start in range(0, len(rows), CHUNK):
            images, taken = self._direct(method, rows[start : start + CHUNK], numbers[start : start + CHUNK])
            parts.append(images)
            spent += taken
            on_images(len(images))
        made = np.concatenate(parts)
        seconds, processor = (spent / len(rows)).tolist()
        return Made(list(made.reshape(len(vectors), seeds, *made.shape[1:])), 0.0, seconds, processor, False)

    def _direct(
        self, method: Direct, rows: Floats, seeds: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Images, and the seconds and processor seconds of all of them."""
        taken: list[float] = []

        def make() -> NDArray[np.uint8]:
            watch = _Watch()
            made = method.images(rows, seeds)
            taken[:] = watch.seconds()
            self._cache.array({"key": key, "of": "times"}, lambda: np.array(taken))
            return made

        key = method.key(rows, seeds)
        images = self._cache.array({"key": key, "of": "images"}, make)
        return images, self._cache.array({"key": key, "of": "times"}, lambda: np.array(taken))

    def _searched(
        self, method: Search, vector: Floats, seed: int, on_queries: OnImages
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Image, and its queries, seconds and processor seconds."""
        key = {
            "method": method.key,
            "black box": self._training.key,
            "vector": vector.tolist(),
            "budget": self._budget,
            "seed": seed,
        }
        numbers: list[float] = []
        told = 0

        def tell(count: int) -> None:
            nonlocal told
            told += count
            on_queries(count)

        def run() -> NDArray[np.uint8]:
            watch = _Watch()
            found = method.reconstruct(vector, BlackBox(self._training.embed), self._budget, seed, tell)
            numbers[:] = [found.queries, *watch.seconds()]
            self._cache.array({**key, "of": "queries and times"}, lambda: np.array(numbers))
            return found.image

        image = self._cache.array({**key, "of": "image"}, run)
        spent = self._cache.array({**key, "of": "queries and times"}, lambda: np.array(numbers))
        on_queries(self._budget - told)  # an image that was kept, or queries that were left
        return image, spent


class _Watch:
    """Measures a piece of work."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Since the start: seconds, and processor seconds of this process."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]
