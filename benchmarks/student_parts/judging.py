"""How the images of students are judged: identity by two FR models, quality, diversity over seeds."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.identity.targets import View, load_targets
from id3pm.evaluation.judges import StageJudge
from id3pm.evaluation.quality.distances import quality
from id3pm.evaluation.quality.diversity import diversity
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.study import load_faces
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceStage
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.preview import Rows, generate
from id3pm.unet.model import UNet

GUIDANCE = 2.0
CHUNK = 16  # images made at once
Images = NDArray[np.uint8]
Maker = Callable[[NDArray[np.float32], Sequence[int]], Images]
"""Images uint8 [N, S, S, 3] of ID vectors [N, D] and seeds."""


@dataclasses.dataclass(frozen=True)
class Judges:
    """Held-out people, and who judges images of them.

    Attributes:
        views: FR models.
        vectors: ID vectors of the people, [N, D].
        network: Looks at images.
        reference: Its features of the people's pictures.
        shown: How many people are shown with several seeds, for the diversity.
        seeds: With how many.
    """

    views: Sequence[View]
    vectors: NDArray[np.float32]
    network: EfficientNetLite0
    reference: NDArray[np.float32]
    shown: int
    seeds: int

    @classmethod
    def load(cls, data: Path, faces: Path, model: str, cache: Path, people: int, shown: int, seeds: int) -> Judges:
        """The first people of a data set's test split.

        Args:
            data: The data set.
            faces: Face engine folder.
            model: Whose ID vectors the bundle takes.
            cache: Folder of what was computed before.
            people: How many.
            shown: See `Judges`.
            seeds: See `Judges`.
        """
        targets = load_targets(data, model, people, 1)
        stage, key = FaceStage.load(faces, threads=1), read_manifest(faces).models_key
        network = EfficientNetLite0()
        return cls(
            [View(judge, targets, Cache(cache)) for judge in (StageJudge(stage, key), DlibJudge(stage, key))],
            targets.vectors,
            network,
            network.features(load_faces(data, model, people).reference),
            shown,
            seeds,
        )

    def judge(self, make: Maker) -> dict[str, Any]:
        """Figures of one image of each person, and of several seeds of some."""
        images = make(self.vectors, range(len(self.vectors)))
        result: dict[str, Any] = {}
        for view in self.views:
            found = view.measure(self._embedded(view, images), np.arange(len(images)))
            result[found.judge] = found.similarity.mean
            result[f"no_face_{found.judge}"] = found.no_face
        how = quality(self.network.features(images), self.reference)
        return {**result, "frechet": how.frechet, "recall": how.recall, "diversity": self._spread(make)}

    def _spread(self, make: Maker) -> dict[str, float]:
        images = make(np.repeat(self.vectors[: self.shown], self.seeds, axis=0), list(range(self.seeds)) * self.shown)
        shape = (self.shown, self.seeds)
        vectors = {view.baseline.judge: self._embedded(view, images).reshape(*shape, -1) for view in self.views}
        features = self.network.features(images).reshape(*shape, -1)
        found = diversity(list(images.reshape(*shape, *images.shape[1:])), features, vectors, None)
        return {name: values[0] for name, values in found.items()}

    def _embedded(self, view: View, images: Images) -> NDArray[np.float32]:
        return view.embed(images, hashlib.sha256(images.tobytes()).hexdigest())


def by_teacher(teacher: Teacher) -> Maker:
    """The teacher's own sampling, at `GUIDANCE`."""

    def make(vectors: NDArray[np.float32], seeds: Sequence[int]) -> Images:
        return teacher.results(seeds, np.full(len(vectors), GUIDANCE, np.float32), {"identity": vectors})

    return make


def by_student(unet: UNet, diffusion: DiffusionConfig, dynamic_threshold: float) -> Maker:
    """All steps of a student, at `GUIDANCE`."""
    steps = len(diffusion.student_timesteps or ())
    how = SamplingOptions(sampler="student", steps=steps, guidance_scale=GUIDANCE, dynamic_threshold=dynamic_threshold)

    def some(vectors: NDArray[np.float32], seeds: Sequence[int]) -> Images:
        def conditions(rows: Rows, conditional: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
            return {"identity": torch.from_numpy(vectors[rows]), "guidance": torch.full((len(rows),), GUIDANCE)}

        return generate(unet, diffusion, how, seeds, conditions)

    def make(vectors: NDArray[np.float32], seeds: Sequence[int]) -> Images:
        starts = range(0, len(vectors), CHUNK)
        return np.concatenate([some(vectors[at : at + CHUNK], seeds[at : at + CHUNK]) for at in starts])

    return make
