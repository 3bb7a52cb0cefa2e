"""Judges of reconstructed faces: similarity, verification, and distance of the pictures from real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.black_box import Floats
from id3pm.evaluation.figures.diversity import interval
from id3pm.evaluation.verification.fr_models import PairModel
from id3pm.evaluation.verification.similarities import FOLDS, folds_of, partners_of, verify

LEAST_FOR_QUALITY = 10


@dataclasses.dataclass(frozen=True, eq=False)
class TargetSet:
    """People to reconstruct.

    Attributes:
        name: For reports.
        images: Their pictures, uint8 [H, W, 3] each.
        vectors: Their ID vectors, float32 [N, D].
        at_home: The pictures are like those that generators here make: a distance of pictures means something.
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    vectors: Floats
    at_home: bool = False

    def first(self, count: int) -> TargetSet:
        """The first so many people."""
        return TargetSet(self.name, self.images[:count], self.vectors[:count], self.at_home)


class Distance(Protocol):
    """How far pictures are from real ones.

    Attributes:
        name: Such as `FID`.
    """

    name: str

    def __call__(self, images: Sequence[NDArray[np.uint8]], reference: Sequence[NDArray[np.uint8]]) -> float:
        """The distance of two sets of one size."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What judges say about images of some people.

    Attributes:
        similarity: By judge: mean cosine of image and target over the images with a face; NaN without any.
        interval: By judge: its 95 % interval, by bootstrap over the targets that have an image with a face.
        no_face: By judge: share of the images without a face.
        verification: By judge: ten-fold accuracy on one image of each person; empty with too few people.
        quality: Distance of one image of each person from the people's real pictures; NaN with too few people.
        people: Of verification and quality.
    """

    similarity: dict[str, float]
    interval: dict[str, tuple[float, float]]
    no_face: dict[str, float]
    verification: dict[str, float]
    quality: float
    people: int


class Judges:
    """FR models and a distance of pictures.

    Args:
        models: The FR model whose vectors are inverted first.
        strangers: Pictures of other people, uint8 [N, S, S, 3]: the mean vector of judges that need one, and what a
            wrong face scores.
        distance: Of pictures; `None` leaves it out.
    """

    def __init__(
        self, models: Sequence[PairModel], strangers: NDArray[np.uint8], distance: Distance | None = None
    ) -> None:
        self._models = models
        self._distance = distance
        self._strangers = [model.views(list(strangers), False)[:, 0] for model in models]
        self._centres = [
            np.nanmean(seen, axis=0) if model.centred else np.zeros(seen.shape[1], np.float32)
            for model, seen in zip(models, self._strangers, strict=True)
        ]

    @property
    def names(self) -> list[str]:
        """Of the FR models."""
        return [model.name for model in self._models]

    def strangers(self, targets: TargetSet) -> Judgement:
        """What pictures of other people score."""
        cosines = {
            model.name: self._targets(number, targets) @ self._directions(number, self._strangers[number]).T
            for number, model in enumerate(self._models)
        }
        return Judgement(**_summary(cosines), verification={}, quality=float("nan"), people=0)

    def judge(
        self, targets: TargetSet, images: Sequence[NDArray[np.uint8]], *, aligned: bool, shared: int
    ) -> Judgement:
        """Judges the images of a method.

        Args:
            targets: As many people as the method made images of.
            images: For each of them uint8 [seeds, H, W, 3]; those behind the first `shared` may have fewer seeds.
            aligned: They are crops of 112 px.
            shared: Similarity counts the first so many people, of which all methods have images.
        """
        cosines: dict[str, Floats] = {}
        verification = {}
        firsts = [of_target[0] for of_target in images]
        few, seeds = images[:shared], len(images[0])
        for number, model in enumerate(self._models):
            wanted = self._targets(number, targets)
            first = self._directions(number, model.views(firsts, aligned)[:, 0])
            every = self._directions(number, model.views([image for one in few for image in one], aligned)[:, 0])
            cosines[model.name] = (np.repeat(wanted[:shared], seeds, axis=0) * every).sum(axis=1).reshape(-1, seeds)
            if len(firsts) >= 2 * FOLDS:
                genuine = (wanted * first).sum(axis=1)
                impostor = (wanted[partners_of(len(wanted))] * first).sum(axis=1)
                verification[model.name] = verify(genuine, impostor, folds_of(len(wanted))).accuracy
        measured = self._distance is not None and targets.at_home and len(firsts) >= LEAST_FOR_QUALITY
        quality = self._distance(firsts, targets.images) if measured and self._distance else float("nan")
        return Judgement(**_summary(cosines), verification=verification, quality=quality, people=len(firsts))

    def seen(self, vectors: Floats, images: Sequence[NDArray[np.uint8]], *, aligned: bool) -> tuple[Floats, Floats]:
        """Unit vectors of images [N, D] by the first judge, and their cosines [N] with ID vectors [N, D]."""
        made = self._directions(0, self._models[0].views(list(images), aligned)[:, 0])
        return made, (self._directions(0, vectors) * made).sum(axis=1)

    def directions(self, images: Sequence[NDArray[np.uint8]], *, aligned: bool) -> dict[str, Floats]:
        """By judge the unit vectors [N, D] of images uint8 [H, W, 3]; NaN where no face was found."""
        return {
            model.name: self._directions(number, model.views(images, aligned)[:, 0])
            for number, model in enumerate(self._models)
        }

    def of_targets(self, targets: TargetSet) -> dict[str, Floats]:
        """By judge the unit vectors [N, D] of the targets."""
        return {model.name: self._targets(number, targets) for number, model in enumerate(self._models)}

    def _targets(self, judge: int, targets: TargetSet) -> Floats:
        """Directions of the targets. The training model is held to the ID vectors, as in `id3pm evaluate identity`."""
        seen = self._models[judge].views(targets.images, False)[:, 0] if judge else targets.vectors
        return self._directions(judge, seen)

    def _directions(self, judge: int, vectors: Floats) -> Floats:
        centred = vectors - self._centres[judge]
        unit: Floats = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return unit


def _summary(cosines: Mapping[str, Floats]) -> dict[str, Any]:
    """The first fields of a judgement from cosines [targets, images] by judge; NaN where no face was found."""
    means, intervals, missing = {}, {}, {}
    for name, of_judge in cosines.items():
        seen = np.isfinite(of_judge)
        means[name] = float(of_judge[seen].mean()) if seen.any() else float("nan")
        per_target = [row[known].mean() for row, known in zip(of_judge, seen, strict=True) if known.any()]
        intervals[name] = interval(np.array(per_target, np.float64))
        missing[name] = float(np.mean(~seen))
    return {"similarity": means, "interval": intervals, "no_face": missing}
