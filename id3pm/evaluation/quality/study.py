"""Quality and diversity by guidance scale: Table 4 of the paper's supplement and the main paper's diversity table.

One image of each person is compared with the real images of the same people, as in the paper; some people are shown
with several seeds. The floor is what real images of other people score against the same reference.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import NULL_VALUE
from id3pm.errors import InvalidInputError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.quality.distances import Quality, quality
from id3pm.evaluation.quality.diversity import CEILING, FLOOR, Diversity, Look, altered, diversity
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.formats import datasets
from id3pm.pipeline import Pipeline

CHUNK = 32  # images between two saves
OnImages = Callable[[int], object]


class FeatureNetwork(Protocol):
    """What looks at images.

    Attributes:
        name: For reports.
        key: What its features depend on.
        frechet_name: What the Frechet distance of its features is called.
        kernel_name: The same of the kernel distance.
    """

    name: str
    key: str
    frechet_name: str
    kernel_name: str

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of uint8 [N, H, W, 3], RGB: float32 [N, D]."""
        ...


@dataclasses.dataclass(frozen=True)
class Faces:
    """People of a data set, and others.

    Attributes:
        reference: Real images of the people, uint8 [N, S, S, 3].
        vectors: Their ID vectors, float32 [N, D].
        others: Real images of other people, uint8 [N, S, S, 3].
        attributes: Attributes of those other people, float32 [N, A]; `None` where the data set has none.
    """

    reference: NDArray[np.uint8]
    vectors: NDArray[np.float32]
    others: NDArray[np.uint8]
    attributes: NDArray[np.float32] | None = None


@dataclasses.dataclass(frozen=True)
class QualityRow:
    """One kind of images.

    Attributes:
        label: `Real images`, or the guidance scale, with or without attributes.
        guidance_scale: `None` for real images.
        quality: Against the reference.
        diversity: Empty for real images, one per person.
    """

    label: str
    guidance_scale: float | None
    quality: Quality
    diversity: Diversity


def load_faces(folder: Path, id_vector_model: str, count: int, split: datasets.Split = "test") -> Faces:
    """People of one split of a data set: the first `count`, and as others the next `count`.

    Raises:
        InvalidInputError: It has ID vectors of another model, or fewer people in this split.
    """
    found = datasets.describe(folder).get("id_vector_model")
    if found != id_vector_model:
        raise InvalidInputError(f"the data set has ID vectors of {found}: this bundle takes those of {id_vector_model}")
    faces = datasets.load(folder, split)
    if len(faces["index"]) < 2 * count:
        raise InvalidInputError(
            f"{count} images need {2 * count} people, half of them for the floor: the data set has "
            f"{len(faces['index'])} in its {split} split"
        )
    attributes = faces["attributes"][count : 2 * count] if "attributes" in faces else None
    return Faces(faces["images"][:count], faces["vectors"][:count], faces["images"][count : 2 * count], attributes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityStudy:
    """One bundle and one feature network; images and features are kept, so an interrupted study goes on.

    Attributes:
        pipeline: Generates.
        faces: People and reference.
        network: Looks at images.
        judges: FR models for the ID distance; the first one gave the ID vectors.
        look: For pose and expression; `None` leaves them out.
        cache: Where images and features are kept.
        people: How many people are shown with several seeds.
        seeds: With how many.
        sampling: Sampling options but for the guidance scale.
        lpips: Measures perceptual distances for the diversity; `None` leaves them out.
    """

    pipeline: Pipeline
    faces: Faces
    network: FeatureNetwork
    judges: Sequence[Judge]
    look: Look | None
    cache: Cache
    people: int
    seeds: int
    sampling: Mapping[str, Any]
    lpips: Lpips | None = None

    @property
    def images_per_row(self) -> int:
        """How many images one guidance scale needs."""
        return len(self.faces.vectors) + self.people * self.seeds

    def real(self) -> QualityRow:
        """The floor: real images of others against the reference."""
        return QualityRow("Real images", None, quality(self._real(self.faces.others), self._reference()), {})

    def generated(
        self, guidance_scale: float, on_images: OnImages = lambda count: None, *, with_attributes: bool = False
    ) -> QualityRow:
        """One guidance scale.

        Args:
            guidance_scale: See `id3pm.config.SamplingOptions`.
            on_images: Called with the number of images whenever some are done.
            with_attributes: Each image gets the attributes of one of the other people.
        """
        options = {**self.sampling, "guidance_scale": guidance_scale}
        count = len(self.faces.vectors)
        given = self._attributes(count) if with_attributes else None
        _, features, _ = self._made(self.faces.vectors, list(range(count)), options, given, on_images)
        repeated = np.repeat(self.faces.vectors[: self.people], self.seeds, axis=0)
        seeds = list(range(self.seeds)) * self.people
        given = self._attributes(len(repeated)) if with_attributes else None
        images, seen, vectors = self._made(repeated, seeds, options, given, on_images)
        shape = (self.people, self.seeds)
        spread = diversity(
            list(images.reshape(*shape, *images.shape[1:])),
            seen.reshape(*shape, -1),
            {name: each.reshape(*shape, -1) for name, each in vectors.items()},
            self.look,
            self.lpips,
            self._targets(self.people),
        )
        label = f"guidance {guidance_scale:g}{', attributes' if with_attributes else ''}"
        return QualityRow(label, guidance_scale, quality(features, self._reference()), spread)

    def references(self) -> dict[str, Diversity]:
        """What the measures of diversity say of one picture, and of pictures of different people."""
        people, seeds = self.people, self.seeds
        own = [altered(image, seeds) for image in self.faces.reference[:people]]
        groups = max(1, min(people, len(self.faces.others) // seeds))  # no picture is in two groups
        others = [self.faces.others[start : start + seeds] for start in range(0, groups * seeds, seeds)]
        return {FLOOR: self._of_real(own), CEILING: self._of_real(others)}

    def _of_real(self, images: list[NDArray[np.uint8]]) -> Diversity:
        every = np.concatenate(images)
        people = len(images)
        vectors = {
            judge.name: self._embedded(judge, every).reshape(people, len(images[0]), -1) for judge in self.judges
        }
        features = self._real(every).reshape(people, len(images[0]), -1)
        return diversity(images, features, vectors, self.look, self.lpips, self._targets(people))

    def _targets(self, people: int) -> dict[str, NDArray[np.float32]]:
        """By FR model the people's own vectors [P, D]: the ID vectors, or what another model sees in their pictures."""
        first, *more = self.judges
        pictures = self.faces.reference[:people]
        return {
            first.name: self.faces.vectors[:people],
            **{judge.name: self._embedded(judge, pictures) for judge in more},
        }

    def _embedded(self, judge: Judge, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        digest = hashlib.sha256(images.tobytes()).hexdigest()
        return self.cache.array({"judge": judge.key, "pictures": digest}, lambda: judge.embed(images))

    def _attributes(self, count: int) -> NDArray[np.float32]:
        """Attributes of the other people, one after the other, [count, A]; those that were measured alone."""
        if self.faces.attributes is None:
            raise InvalidInputError("the data set has no attributes: measure them with id3pm measure-dataset")
        measured = self.faces.attributes[(self.faces.attributes != NULL_VALUE).any(axis=1)]
        if not len(measured):
            raise InvalidInputError("the data set has no face with attributes that could be measured")
        rows: NDArray[np.float32] = measured[np.arange(count) % len(measured)]
        return rows

    def _reference(self) -> NDArray[np.float32]:
        return self._real(self.faces.reference)

    def _real(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        digest = hashlib.sha256(images.tobytes()).hexdigest()
        return self.cache.array({"features": self.network.key, "images": digest}, lambda: self.network.features(images))

    def _made(
        self,
        vectors: NDArray[np.float32],
        seeds: Sequence[int],
        options: Mapping[str, Any],
        attributes: NDArray[np.float32] | None,
        on_images: OnImages,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Images, their features, and their vectors by FR model."""
        images, features = [], []
        found: dict[str, list[NDArray[np.float32]]] = {judge.name: [] for judge in self.judges}
        for start in range(0, len(vectors), CHUNK):
            rows = slice(start, start + CHUNK)
            some, chunk = vectors[rows], list(seeds[rows])
            more = dict(options) if attributes is None else {**options, "attributes": attributes[rows]}
            key = self.pipeline.receipts(some, chunk, super_resolution=False, **more)
            made = self.cache.array(key, functools.partial(self.pipeline.generate_64, some, chunk, **more))
            images.append(made)
            features_key = {"features": self.network.key, "images": key}
            features.append(self.cache.array(features_key, functools.partial(self.network.features, made)))
            for judge in self.judges:
                judge_key = {"judge": judge.key, "images": key}
                found[judge.name].append(self.cache.array(judge_key, functools.partial(judge.embed, made)))
            on_images(len(made))
        return np.concatenate(images), np.concatenate(features), {k: np.concatenate(v) for k, v in found.items()}
