"""Held-out people, and a judge's similarities of generated pictures to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from id3pm.errors import InvalidInputError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.verification.similarities import (
    Distribution,
    Floats,
    Verification,
    distribution,
    folds_of,
    partners_of,
    verify,
)
from id3pm.formats import datasets as shards

BLUR, BRIGHTNESS = 1.0, 1.2
"""The altered picture of the same-face bound: blur in 64ths of the width (standard deviation), factor on the pixels."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """People held out from training.

    Attributes:
        images: Their pictures, uint8 [N, S, S, 3].
        vectors: Their ID vectors, float32 [N, D].
        seeds: Seeds of their images, int64 [N, K]; all different, and the same in every setting.
    """

    images: NDArray[np.uint8]
    vectors: NDArray[np.float32]
    seeds: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """One judge's yardsticks.

    Attributes:
        judge: Its name.
        independent: Whether it was not used in training.
        impostors: Each target against every other target.
        bound: Each target against its own picture flipped, slightly blurred and brightened.
        verification: With these altered pictures in the place of generated ones.
    """

    judge: str
    independent: bool
    impostors: Distribution
    bound: Distribution
    verification: Verification


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One judge's opinion of the images of one setting.

    Attributes:
        judge: Its name.
        similarity: Each generated image against its target.
        recovered: Where their mean lies between the means of the impostors (0) and of the same-face bound (1).
        no_face: Share of the images in which no face was found.
        verification: Target and generated image, of one person or of two.
    """

    judge: str
    similarity: Distribution
    recovered: float
    no_face: float
    verification: Verification


def load_targets(folder: Path, id_vector_model: str, identities: int, seeds: int, first_seed: int = 0) -> Targets:
    """The first people of a data set's test split.

    Args:
        folder: The data set.
        id_vector_model: The FR model whose ID vectors are needed.
        identities: How many people.
        seeds: Images for each of them.
        first_seed: Seeds count up from here.

    Raises:
        InvalidInputError: The data set has too few people, or ID vectors of another model.
    """
    found = shards.describe(folder).get("id_vector_model")
    if found != id_vector_model:
        raise InvalidInputError(f"the data set has ID vectors of {found}: this bundle takes those of {id_vector_model}")
    split = shards.load(folder, "test")
    if len(split["index"]) < identities:
        raise InvalidInputError(f"{identities} identities: the data set holds out {len(split['index'])}")
    return Targets(
        images=split["images"][:identities],
        vectors=split["vectors"][:identities],
        seeds=first_seed + np.arange(identities * seeds, dtype=np.int64).reshape(identities, seeds),
    )


def altered(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same faces flipped, slightly blurred and brightened: uint8 [N, S, S, 3]."""
    blur = ImageFilter.GaussianBlur(BLUR * images.shape[2] / 64)
    pictures = [Image.fromarray(np.ascontiguousarray(image[:, ::-1])).filter(blur) for image in images]
    return np.stack([np.asarray(ImageEnhance.Brightness(picture).enhance(BRIGHTNESS)) for picture in pictures])


class View:
    """The targets as one judge sees them."""

    def __init__(self, judge: Judge, targets: Targets, cache: Cache) -> None:
        self._judge = judge
        self._cache = cache
        # The model that gave the ID vectors is compared with the requested vector; another one only with the picture.
        raw = judge.embed(targets.images) if judge.independent else targets.vectors
        self._center = np.nanmean(raw, axis=0) if judge.centred else np.zeros(raw.shape[1], raw.dtype)
        self._targets = self._directions(raw)
        count = len(raw)
        self._folds, self._partners = folds_of(count), partners_of(count)
        altered_vectors = judge.embed(altered(targets.images))
        others = self._targets @ self._targets.T
        rows = np.arange(count)
        bound, verification = self._compare(altered_vectors, rows)
        self.baseline = Baseline(
            judge=judge.name,
            independent=judge.independent,
            impostors=distribution(others[~np.eye(count, dtype=bool)]),
            bound=distribution(bound),
            verification=verification,
        )

    def embed(self, images: NDArray[np.uint8], images_key: object) -> NDArray[np.float32]:
        """Vectors [P, D] of images [P, S, S, 3] that are known by a key; NaN where there is no face."""
        return self._cache.array({"judge": self._judge.key, "images": images_key}, lambda: self._judge.embed(images))

    def similarities(self, vectors: NDArray[np.float32], people: NDArray[np.int64]) -> Floats:
        """Cosines between vectors [P, D] and the targets of these numbers [P]; NaN where there is no face."""
        cosines: Floats = np.einsum("pd,pd->p", self._directions(vectors), self._targets[people])
        return cosines

    def agreement(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> Floats:
        """Cosines [P] between two sets of vectors [P, D], row by row; NaN where either has no face."""
        cosines: Floats = np.einsum("pd,pd->p", self._directions(first), self._directions(second))
        return cosines

    def measure(self, vectors: NDArray[np.float32], people: NDArray[np.int64]) -> Measurement:
        """Compares generated images, vectors [P, D], with the targets of these numbers [P]."""
        similarities, verification = self._compare(vectors, people)
        described = distribution(similarities)
        low, high = self.baseline.impostors.mean, self.baseline.bound.mean
        return Measurement(
            judge=self._judge.name,
            similarity=described,
            recovered=(described.mean - low) / (high - low),
            no_face=float(np.mean(~np.isfinite(vectors[:, 0]))),
            verification=verification,
        )

    def _compare(self, vectors: NDArray[np.float32], people: NDArray[np.int64]) -> tuple[Floats, Verification]:
        genuine = self.similarities(vectors, people)
        impostor = self.similarities(vectors, self._partners[people])
        return genuine, verify(genuine, impostor, self._folds[people])

    def _directions(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = vectors - self._center
        unit: NDArray[np.float32] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return unit
