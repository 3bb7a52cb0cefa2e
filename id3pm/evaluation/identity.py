"""Do generated faces show whom they should? Similarity and verification, by guidance scale and by steps.

As Kansy et al. 2023, section 4 and Table 5: ID vectors of people held out from training, one generated image or more
for each, embedded again and compared. Two yardsticks frame the numbers: pairs of different people, and the target's
own picture slightly altered, which no generated image should be expected to beat by much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from id3pm import shards
from id3pm.config import SamplerName, to_json
from id3pm.errors import InvalidInputError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.encoders import Judge
from id3pm.evaluation.verification import (
    Distribution,
    Floats,
    Verification,
    distribution,
    folds_of,
    partners_of,
    verify,
)
from id3pm.pipeline import Pipeline

BLUR, BRIGHTNESS = 1.0, 1.2
"""The altered picture of the same-face bound: blur in 64ths of the width (standard deviation), factor on the pixels."""
CHUNK = 32  # images between two saves: an interruption costs at most these


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """How the images of one row of the report are sampled."""

    sampler: SamplerName
    steps: int
    guidance_scale: float


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
        independent: Whether training never saw it.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SettingResult:
    """The opinions of all judges on one setting."""

    setting: Setting
    measurements: tuple[Measurement, ...]


def settings_of(
    samplers: Sequence[SamplerName],
    guidance_scales: Sequence[float],
    steps: Sequence[int],
    at_guidance: float,
    at_steps: int,
) -> list[Setting]:
    """Both sweeps for every sampler, each setting once: guidance scales at fixed steps, steps at a fixed scale."""
    wanted = [
        Setting(sampler=sampler, steps=count, guidance_scale=scale)
        for sampler in samplers
        for scale, count in [
            (at_guidance, at_steps),
            *((scale, at_steps) for scale in guidance_scales),
            *((at_guidance, count) for count in steps),
        ]
    ]
    return list(dict.fromkeys(wanted))


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


class IdentityStudy:
    """One bundle, some people, some judges; every image and vector is kept, so an interrupted study goes on.

    Args:
        pipeline: Generates.
        targets: Whom.
        judges: Who compares.
        cache: Where images and vectors are kept.
        super_resolution: Judge the 256 px images instead of the 64 px images.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        targets: Targets,
        judges: Sequence[Judge],
        cache: Cache,
        super_resolution: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._targets = targets
        self._cache = cache
        self._super_resolution = super_resolution
        self._views = [_View(judge, targets, cache) for judge in judges]

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """The yardsticks of every judge."""
        return tuple(view.baseline for view in self._views)

    def measure(self, setting: Setting, on_images: Callable[[int], None] = lambda count: None) -> SettingResult:
        """`judge` for one row of the report."""
        return SettingResult(setting=setting, measurements=self.judge(to_json(setting), on_images))

    def judge(
        self, options: Mapping[str, Any], on_images: Callable[[int], None] = lambda count: None
    ) -> tuple[Measurement, ...]:
        """Generates and judges the images of one way of sampling; one opinion per judge.

        Args:
            options: Sampling options as `Pipeline.generate` takes them.
            on_images: Called with the number of images whenever some are done.
        """
        vectors = self._vectors(options, on_images)
        return tuple(view.measure(found, self._people) for view, found in zip(self._views, vectors, strict=True))

    def agreement(self, options: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[Distribution, ...]:
        """How alike two ways of sampling make the same person from the same seed.

        Args:
            options: Sampling options.
            reference: Other ones.

        Returns:
            For every judge the cosine similarities of the pairs of images; those without a face do not count.
        """
        pairs = zip(self._views, self._vectors(options), self._vectors(reference), strict=True)
        return tuple(distribution(view.agreement(first, second)) for view, first, second in pairs)

    @property
    def _people(self) -> NDArray[np.int64]:
        count, seeds = self._targets.seeds.shape
        return np.repeat(np.arange(count), seeds)

    def _vectors(
        self, options: Mapping[str, Any], on_images: Callable[[int], None] = lambda count: None
    ) -> list[NDArray[np.float32]]:
        """What each judge sees in the images of all targets, [P, D]."""
        vectors: list[list[NDArray[np.float32]]] = [[] for _ in self._views]
        for images, key in self._chunks(options, self._people, self._targets.seeds.ravel()):
            for view, parts in zip(self._views, vectors, strict=True):
                parts.append(view.embed(images, key))
            on_images(len(images))
        return [np.concatenate(parts) for parts in vectors]

    def faces(self, setting: Setting, people: int, seeds: int) -> tuple[NDArray[np.uint8], list[Floats]]:
        """Some people's images with their similarities, for a picture.

        Args:
            setting: How to sample.
            people: The first so many targets.
            seeds: 0 .. seeds - 1, the same for all people.

        Returns:
            uint8 [people, seeds, S, S, 3], and for every judge the similarities [people, seeds].
        """
        rows = np.repeat(np.arange(people), seeds)
        chunks = list(self._chunks(to_json(setting), rows, np.tile(np.arange(seeds), people)))
        images = np.concatenate([images for images, _ in chunks])
        similarities = [
            view.similarities(np.concatenate([view.embed(images, key) for images, key in chunks]), rows)
            for view in self._views
        ]
        return (
            images.reshape(people, seeds, *images.shape[1:]),
            [values.reshape(people, seeds) for values in similarities],
        )

    def _chunks(
        self, options: Mapping[str, Any], people: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.uint8], Any]]:
        """Images uint8 [n, S, S, 3] of these rows, a chunk at a time, and what they depend on: their receipts."""
        for start in range(0, len(people), CHUNK):
            vectors = self._targets.vectors[people[start : start + CHUNK]]
            chunk = seeds[start : start + CHUNK].tolist()
            key = self._pipeline.receipts(vectors, chunk, super_resolution=self._super_resolution, **options)
            yield self._cache.array(key, lambda v=vectors, s=chunk: self._generate(v, s, options)), key  # type: ignore[misc]

    def _generate(
        self, vectors: NDArray[np.float32], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> NDArray[np.uint8]:
        if self._super_resolution:
            return self._pipeline.generate(vectors, seeds, **options).images
        return self._pipeline.generate_64(vectors, seeds, **options)


class _View:
    """The targets as one judge sees them."""

    def __init__(self, judge: Judge, targets: Targets, cache: Cache) -> None:
        self._judge = judge
        self._cache = cache
        # The model that gave the ID vectors is held to what was asked for; another one has only the picture to go by.
        raw = judge.embed(targets.images) if judge.independent else targets.vectors
        self._center = np.nanmean(raw, axis=0) if judge.centred else np.zeros(raw.shape[1], raw.dtype)
        self._targets = self._directions(raw)
        count = len(raw)
        self._folds, self._partners = folds_of(count), partners_of(count)
        altered_vectors = judge.embed(altered(targets.images))
        others = self._targets @ self._targets.T
        everybody = np.arange(count)
        bound, verification = self._compare(altered_vectors, everybody)
        self.baseline = Baseline(
            judge=judge.name,
            independent=judge.independent,
            impostors=distribution(others[~np.eye(count, dtype=bool)]),
            bound=distribution(bound),
            verification=verification,
        )

    def embed(self, images: NDArray[np.uint8], images_key: Any) -> NDArray[np.float32]:
        """Vectors of images that are known by a key."""
        return self._cache.array({"judge": self._judge.key, "images": images_key}, lambda: self._judge.embed(images))

    def similarities(self, vectors: NDArray[np.float32], people: NDArray[np.int64]) -> Floats:
        """Cosines between vectors [P, D] and the targets of these numbers [P]; NaN where there is no face."""
        cosines: Floats = np.einsum("pd,pd->p", self._directions(vectors), self._targets[people])
        return cosines

    def agreement(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> Floats:
        """Cosines between two sets of vectors, row by row; NaN where either has no face."""
        cosines: Floats = np.einsum("pd,pd->p", self._directions(first), self._directions(second))
        return cosines

    def measure(self, vectors: NDArray[np.float32], people: NDArray[np.int64]) -> Measurement:
        """What to say about generated images with these vectors [P, D] of the people of these numbers [P]."""
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
