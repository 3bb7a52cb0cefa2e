"""Filters of images: a face, like its target, unlike all others, and like the other images of its identity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.faces import largest_faces
from id3pm.face.manifest import FaceManifest, read_manifest
from id3pm.face.stage import FaceStage
from id3pm.idspace.vectors import Vectors
from id3pm.synthetic.errors import OtherDatasetError
from id3pm.synthetic.plan_header import Filters, PlanHeader

FACES = Path("face_embedding/1/engine")
"""The face models in a model repository."""
DIGITS = 4
"""Decimals of similarities: the number of threads must not decide whether an image is kept."""
NO_FACE, UNLIKE, OTHER, SECOND = "no_face", "similarity", "other_identity", "second_similarity"
"""Reasons of rejection."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What the FR models say of one image; NaN where they were not asked.

    Attributes:
        reason: Why it is rejected, or `None`.
        similarity: Cosine of its ID vector and its target.
        other_similarity: Of its ID vector and the nearest target of another identity.
        other_identity: Number of that identity, or -1.
        detection: float32 [15], or `None`.
        second_vector: Of the second model, or `None`.
    """

    reason: str | None = None
    similarity: float = math.nan
    other_similarity: float = math.nan
    other_identity: int = -1
    detection: NDArray[np.float32] | None = None
    second_vector: NDArray[np.float32] | None = None


class ImageJudges:
    """The FR models of a plan.

    Args:
        filters: Of the plan.
        stage: The face stage that gave the ID vectors; `None` where no filter is on.
        second: The second model, or `None`.
        targets: ID vectors of all identities, float32 [N, D].
    """

    def __init__(
        self, filters: Filters, stage: FaceStage | None, second: DlibJudge | None, targets: Vectors | None
    ) -> None:
        self.filters = filters
        self._stage = stage
        self._second = second
        self._targets = None
        if targets is not None and len(targets) > 1:
            with np.errstate(invalid="ignore"):  # NaN where an identity has no image
                self._targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)

    @classmethod
    def load(cls, header: PlanHeader, repository: Path, targets: Vectors | None) -> ImageJudges:
        """The models that the plan names.

        Each network has one thread: shards are judged beside each other and beside the engines, and onnxruntime's
        threads would spend as much of a processor waiting for each other as computing.

        Args:
            header: Of the plan.
            repository: With built face models.
            targets: See `ImageJudges`.

        Raises:
            OtherDatasetError: The models are not those of the plan.
            EngineError: They are damaged or missing.
            MissingExtraError: dlib is not installed.
        """
        filters = header.filters
        if not filters.on:
            return cls(filters, None, None, None)
        manifest = read_manifest(repository / FACES)
        stage = FaceStage.load(repository / FACES, threads=1)
        second = DlibJudge(stage, "") if filters.second else None
        _require_models(filters.models, models_of(manifest, second is not None))
        return cls(filters, stage, second, targets)

    def judge(
        self, images: NDArray[np.uint8], identities: Sequence[int], targets: NDArray[np.float32]
    ) -> list[Verdict]:
        """All filters that need this image alone.

        Args:
            images: uint8 [N, H, W, 3].
            identities: Of each.
            targets: Their ID vectors, float32 [N, D].
        """
        if self._stage is None:
            return [Verdict()] * len(images)
        vectors, detections = largest_faces(self._stage, images)
        others = self._nearest_others(vectors, identities)
        return [
            self._verdict(image, vector, detection, target, other)
            for image, vector, detection, target, other in zip(
                images, vectors, detections, targets, others, strict=True
            )
        ]

    def _verdict(
        self,
        image: NDArray[np.uint8],
        vector: NDArray[np.float32],
        detection: NDArray[np.float32],
        target: NDArray[np.float32],
        nearest: tuple[float, int],
    ) -> Verdict:
        if np.isnan(vector).any():
            return Verdict(reason=NO_FACE)
        similarity = _cosine(vector, target)
        other, other_identity = nearest
        least, most = self.filters.least_similarity, self.filters.most_other
        reason = None
        if least is not None and similarity < least:
            reason = UNLIKE
        elif most is not None and other > most:
            reason = OTHER
        second = None
        if reason is None and self._second is not None:
            second = self._second.describe(self._second.chip(image, detection))
        return Verdict(
            reason=reason,
            similarity=similarity,
            other_similarity=other,
            other_identity=other_identity,
            detection=detection,
            second_vector=second,
        )

    def _nearest_others(self, vectors: NDArray[np.float32], identities: Sequence[int]) -> list[tuple[float, int]]:
        """Of each image the cosine and the number of the most similar identity that is not its own."""
        if self._targets is None:
            return [(math.nan, -1)] * len(vectors)
        cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ self._targets.T
        cosines[np.arange(len(vectors)), identities] = -np.inf
        cosines[np.isnan(cosines)] = -np.inf
        nearest = cosines.argmax(axis=1)
        return [(round(float(row[at]), DIGITS), int(at)) for row, at in zip(cosines, nearest, strict=True)]

    def agreement(self, vector: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> float:
        """Similarity of a vector of the second model and the mean of others; NaN where there are none.

        dlib's network was trained on Euclidean distances: 1 minus the distance.
        """
        if not others:
            return math.nan
        distance = np.linalg.norm(vector.astype(np.float64) - np.mean(np.stack(others), axis=0, dtype=np.float64))
        return round(1.0 - float(distance), DIGITS)


def models_of(manifest: FaceManifest, second: bool) -> dict[str, str]:
    """What the decisions depend on: name of a model -> its files.

    Raises:
        MissingExtraError: dlib is not installed.
    """
    models = {manifest.id_vector_model: " ".join([*manifest.detector_files.values(), manifest.encoder_sha256])}
    if second:
        models["dlib"] = "resnet_model_v1, 5 landmarks"
    return models


def _require_models(wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name, files in wanted.items():
        if found.get(name) != files:
            here = ", ".join(f"{other} ({key[:24]}...)" for other, key in found.items())
            raise OtherDatasetError(
                f"the plan's filters were made for {name} ({files[:24]}...), here is {here}: they keep other images"
            )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    first, second = a.astype(np.float64), b.astype(np.float64)
    return round(float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second))), DIGITS)


def default_similarity(manifest: FaceManifest) -> float:
    """The FR model's published threshold.

    Raises:
        InvalidInputError: Its authors published none.
    """
    if manifest.published_threshold is None:
        raise InvalidInputError(
            f"{manifest.id_vector_model} has no published threshold: give --least-similarity, or none"
        )
    return manifest.published_threshold.cosine
