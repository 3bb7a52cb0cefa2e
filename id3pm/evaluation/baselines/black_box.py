"""The black-box FR model of search methods: pictures in, similarities out, with a count of queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[NDArray[np.uint8]], bool], Floats]
CHUNK = 8
"""Pictures that are embedded together: on a CPU more of them take longer each, as their maps leave the cache."""
NO_FACE = -1.0
"""The similarity of a picture in which the black box finds no face."""


class BlackBox:
    """An FR model that gives ID vectors and nothing else: no gradient, no score of its own.

    Args:
        embed: ID vectors [N, D] of uint8 pictures [H, W, 3], aligned crops or not; NaN where no face was found.

    Attributes:
        queries: Pictures that were embedded so far.
    """

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self.queries = 0

    def vectors(self, images: Sequence[NDArray[np.uint8]], *, aligned: bool) -> Floats:
        """Unit ID vectors [N, D]; NaN where no face was found."""
        self.queries += len(images)
        parts = [self._embed(images[start : start + CHUNK], aligned) for start in range(0, max(1, len(images)), CHUNK)]
        vectors = np.concatenate(parts)
        unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def similarities(self, images: Sequence[NDArray[np.uint8]], target: Floats, *, aligned: bool) -> Floats:
        """Cosines [N] with a target [D]; `NO_FACE` where no face was found."""
        cosines = self.vectors(images, aligned=aligned) @ (target / np.linalg.norm(target))
        return np.where(np.isfinite(cosines), cosines, NO_FACE).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a method makes of one ID vector.

    Attributes:
        image: uint8 [H, W, 3].
        similarity: Cosine with the target, as the black box said during the search.
        queries: Pictures that the black box was asked about for it.
    """

    image: NDArray[np.uint8]
    similarity: float
    queries: int


class Search(Protocol):
    """A method that searches by queries; another seed finds another picture.

    Attributes:
        name: For reports.
        key: What its results depend on, besides target, budget and seed.
        aligned: Its images are aligned crops of 112 px, not pictures of a head.
    """

    name: str
    key: str
    aligned: bool

    def reconstruct(
        self, target: Floats, black_box: BlackBox, budget: int, seed: int, on_queries: Callable[[int], object]
    ) -> Reconstruction:
        """Searches for a picture.

        Args:
            target: ID vector [D].
            black_box: Is asked about pictures.
            budget: Most queries.
            seed: Of the search.
            on_queries: Called with the number of queries whenever some were made.
        """
        ...


class Direct(Protocol):
    """A method that makes pictures of ID vectors without queries.

    Attributes:
        name: For reports.
        one_to_many: Another seed gives another picture.
    """

    name: str
    one_to_many: bool

    def key(self, vectors: Floats, seeds: Sequence[int]) -> object:
        """JSON value with everything that pictures of these vectors depend on."""
        ...

    def images(self, vectors: Floats, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Pictures uint8 [N, H, W, 3] of ID vectors [N, D]."""
        ...
