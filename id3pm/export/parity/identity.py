"""The repository's face stage, where it fits the bundle, and the ID vector of a photograph under it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineError
from id3pm.face.stage import FaceStage
from id3pm.samples import PHOTOGRAPH


def face_stage(repository: Path, id_vector_model: str) -> FaceStage | None:
    """The repository's face stage; `None` where none is built that gives these ID vectors."""
    try:
        stage = FaceStage.load(repository / "face_embedding" / "1" / "engine")
    except EngineError:
        return None
    return stage if stage.id_vector_model == id_vector_model else None


def known_face(stage: FaceStage) -> NDArray[np.float32]:
    """ID vector of the face on `PHOTOGRAPH`: float32 [D], L2 norm 1."""
    return stage.embed(PHOTOGRAPH.read_bytes()).embedding
