"""Diversity of one-to-many methods over seeds, beside each other: the main paper's diversity table with GAN search."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.judging import Judges, TargetSet
from id3pm.evaluation.quality.diversity import CEILING, FLOOR, Diversity, Look, altered, diversity
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.evaluation.quality.study import FeatureNetwork

LEAST_SEEDS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """What measures diversity, the same for all methods.

    Attributes:
        judges: FR models.
        network: Gives features.
        look: For pose and expression; `None` leaves them out.
        lpips: For perceptual distances; `None` leaves them out.
    """

    judges: Judges
    network: FeatureNetwork
    look: Look | None
    lpips: Lpips | None

    def of_method(self, targets: TargetSet, images: Sequence[NDArray[np.uint8]], *, aligned: bool) -> Diversity:
        """The diversity of a method's images.

        Args:
            targets: The people.
            images: For each of them uint8 [S, H, W, 3].
            aligned: They are crops of 112 px.
        """
        people, seeds = len(images), len(images[0])
        features = self.network.features(np.concatenate(images)) if _one_size(images) else self._each(images)
        own = self.judges.of_targets(targets)
        seen = self.judges.directions([image for person in images for image in person], aligned=aligned)
        vectors = {name: each.reshape(people, seeds, -1) for name, each in seen.items()}
        return diversity(images, features.reshape(people, seeds, -1), vectors, self.look, self.lpips, own)

    def references(self, targets: TargetSet, strangers: NDArray[np.uint8], seeds: int) -> dict[str, Diversity]:
        """The diversity of one picture of each target, altered, and of pictures of strangers.

        Args:
            targets: The people.
            strangers: Pictures of others, uint8 [N, S, S, 3].
            seeds: Images of each person.
        """
        same = [altered(image, seeds) for image in targets.images]
        groups = max(1, min(len(same), len(strangers) // seeds))
        others = [strangers[start : start + seeds] for start in range(0, groups * seeds, seeds)]
        return {
            FLOOR: self.of_method(targets, same, aligned=False),
            CEILING: self.of_method(targets.first(groups), others, aligned=False),
        }

    def _each(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.concatenate([self.network.features(person) for person in images])


def _one_size(images: Sequence[NDArray[np.uint8]]) -> bool:
    return len({person.shape for person in images}) == 1
