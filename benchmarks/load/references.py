"""Reference images: generated in process by the same engines, before any load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.pipeline import Pipeline
from load.arrivals import Kind
from load.generator import digest


def references(
    repository: Path, kinds: Sequence[Kind], identities: NDArray[np.float32], seeds: int, threads: int | None = None
) -> dict[tuple[str, int], str]:
    """Digests of the images of the seeds 0, 1, ... of every valid kind, by name of the kind and seed.

    Args:
        repository: Engines.
        kinds: Their options.
        identities: Seed i goes with ID vector i, from the first again after the last.
        seeds: How many of each kind.
        threads: CPU threads of each engine, as the server has them.
    """
    found = {}
    with Pipeline.load(repository, threads=threads) as pipeline:
        for kind in (kind for kind in kinds if kind.valid):
            options = {name: value for name, value in kind.options.items() if name != "priority"}
            vectors = identities[np.arange(seeds) % len(identities)]
            made = pipeline.generate(vectors, range(seeds), **options)
            for seed in range(seeds):
                found[kind.name, seed] = digest(made.images[seed], made.images_64[seed])
    return found
