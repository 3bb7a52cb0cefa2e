"""Generated images that are kept on disk, a chunk at a time, so an interrupted study goes on where it stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.cache import Cache
from id3pm.pipeline import Pipeline
from id3pm.sampling.receipt import Receipt

CHUNK = 32  # images between two saves: an interruption costs at most these


@dataclasses.dataclass(frozen=True)
class KeptImages:
    """Images of one bundle.

    Attributes:
        pipeline: Generates.
        cache: Where the images are kept.
        super_resolution: 256 px images instead of the 64 px images.
    """

    pipeline: Pipeline
    cache: Cache
    super_resolution: bool = False

    def chunks(
        self, vectors: NDArray[np.float32], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> Iterator[tuple[NDArray[np.uint8], list[Receipt]]]:
        """Images uint8 [n, S, S, 3] of ID vectors [N, D] in their order, and what they depend on: their receipts.

        Args:
            vectors: The ID vectors.
            seeds: One for each.
            options: Sampling options as `Pipeline.generate` takes them.
        """
        for start in range(0, len(vectors), CHUNK):
            rows, chunk = vectors[start : start + CHUNK], list(seeds[start : start + CHUNK])
            key = self.pipeline.receipts(rows, chunk, super_resolution=self.super_resolution, **options)
            yield self.cache.array(key, lambda v=rows, s=chunk: self._generate(v, s, options)), key  # type: ignore[misc]

    def _generate(
        self, vectors: NDArray[np.float32], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> NDArray[np.uint8]:
        if self.super_resolution:
            return self.pipeline.generate(vectors, seeds, **options).images
        return self.pipeline.generate_64(vectors, seeds, **options)
