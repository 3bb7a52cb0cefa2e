"""Stand-ins: a portrait without a face, a threshold, and the diffusion model."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.robustness.portrait import AVERAGE_FACE, SIZE, Portrait
from id3pm.evaluation.robustness.thresholds import Threshold
from id3pm.face.stage import FaceStage

PEOPLE = Path(__file__).parents[3] / "demo/people"


def flat_portrait(value: int = 128, tilt: float = 15.0) -> Portrait:
    """A grey square with the landmarks of an average face, tilted by so many degrees, 60 px from eye to eye."""
    angle = np.radians(tilt)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = AVERAGE_FACE * 60 @ turn.T + (128, 100)
    return Portrait(np.full((SIZE, SIZE, 3), value, np.uint8), landmarks)


def made_up_threshold(judge: str, cosine: float) -> Threshold:
    """A decision threshold of a judge, without a false decision."""
    return Threshold(
        judge=judge,
        key=judge,
        cosine=cosine,
        accuracy=1.0,
        standard_error=0.0,
        strangers_accepted=0.0,
        false_match_1_in_100=0.0,
        false_match_1_in_1000=0.0,
        people=20,
        data="made up",
    )


class MadeUpPipeline:
    """Generates one and the same face whatever it is asked for, and remembers what that was."""

    def __init__(self, stage: FaceStage, face: NDArray[np.uint8]) -> None:
        self.face_stage = stage
        self.base_manifest = types.SimpleNamespace(
            bundle=types.SimpleNamespace(name="made up", weights_sha256="ab" * 32),
            target="none",
            precision="fp32",
            diffusion=types.SimpleNamespace(student_timesteps=None),
        )
        self.asked: list[tuple[NDArray[np.float32], int, dict[str, Any]]] = []
        self._face = cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA)

    def check(self, **options: Any) -> None:
        """Takes everything."""

    def generate_64(self, vectors: NDArray[np.float32], seed: int, **options: Any) -> NDArray[np.uint8]:
        assert np.isfinite(vectors).all()
        self.asked.append((vectors, seed, options))
        return np.repeat(self._face[None], len(vectors), axis=0)

    def __enter__(self) -> MadeUpPipeline:
        return self

    def __exit__(self, *error: object) -> None:
        pass
