"""The FR models that judge generated faces, behind one interface."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.faces import largest_faces
from id3pm.face.stage import FaceStage


class Judge(Protocol):
    """An FR model with its own way from a picture to a vector.

    Attributes:
        name: For reports.
        key: Everything that determines its vectors: model, version, detector.
        independent: Whether the generator was trained without it.
        centred: Whether the mean vector of the targets must be subtracted before angles are compared, as for models
            that were trained on Euclidean distances.
    """

    name: str
    key: str
    independent: bool
    centred: bool

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of the largest face in each picture.

        Args:
            images: uint8 [N, H, W, 3], RGB.

        Returns:
            float32 [N, D]; NaN where no face was found.
        """
        ...


class StageJudge:
    """The face stage that gave the ID vectors: shows whether the generator does what it was trained for.

    Args:
        stage: The stage.
        key: Hash of its models.
    """

    independent = False
    centred = False

    def __init__(self, stage: FaceStage, key: str) -> None:
        self.name = stage.id_vector_model
        self.key = f"{self.name} {key}"
        self._stage = stage

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Judge.embed`."""
        return largest_faces(self._stage, images)[0]
