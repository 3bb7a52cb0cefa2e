"""From pictures to (crop, ID vector) pairs: detection, filter, and the vectors of a face and of its mirror image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.face.encoders import load_models
from id3pm.face.manifest import FaceManifest, read_manifest
from id3pm.face.stage import FaceStage

MIRRORED = [1, 0, 2, 4, 3]  # landmark order after a horizontal flip: left and right change places


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceFilter:
    """Which detections make a training image.

    Attributes:
        min_score: Least detection score, 0..1.
        max_turn: Greatest |nose tip - middle of the eyes| along the line of the eyes, in distances between the eyes: 0
            is a frontal face, about 0.5 a half profile. `None` takes any.
        min_eye_distance: Least distance between the eyes in widths of the picture.
    """

    min_score: float = 0.6
    max_turn: float | None = None
    min_eye_distance: float = 0.0

    def accepts(self, face: NDArray[np.float32], width: int) -> bool:
        """Whether a detection [15] in a picture of this width passes."""
        right, left, nose = face[4:10].reshape(3, 2)
        eyes = left - right
        distance = float(np.hypot(*eyes))
        if face[14] < self.min_score or distance < max(self.min_eye_distance * width, 1e-3):
            return False
        turn = abs(float((nose - (left + right) / 2) @ eyes)) / distance**2
        return self.max_turn is None or turn <= self.max_turn


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Faces that passed the filter.

    Attributes:
        rows: int64 [K], their positions among the given pictures.
        vectors: ID vectors, float32 [K, D], as `id3pm.face.stage.FaceResult.embedding`.
        flipped_vectors: ID vectors of the mirrored pictures, float32 [K, D]: a network that sees flipped images must
            see the vectors that belong to them. Empty if they were not requested.
        detections: float32 [K, 15], see `id3pm.face.detect.DETECTION_SIZE`.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    flipped_vectors: NDArray[np.float32]
    detections: NDArray[np.float32]


class Embedder:
    """Detector, alignment and encoder of one FR method, for training sets.

    Args:
        folder: A face engine folder, for example triton_repo/face_embedding/1/engine.
        threads: Threads of the networks; 1 where several processes work side by side.

    Raises:
        EngineError: The folder is not usable.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.manifest: FaceManifest = read_manifest(folder)
        detector, encoder = load_models(folder, self.manifest, threads)
        self._stage = FaceStage(
            self.manifest.id_vector_model,
            detector,
            encoder,
            self.manifest.preprocessing,
            self.manifest.detection_size,
        )

    def embed(self, images: NDArray[np.uint8], face_filter: FaceFilter, *, mirror: bool = True) -> Embedded:
        """ID vectors of the largest face of each picture that has one which passes the filter.

        Args:
            images: uint8 [N, H, W, 3], RGB.
            face_filter: Which faces to keep.
            mirror: Embed the mirrored pictures, too; else `flipped_vectors` is empty, [0, D].
        """
        width = images.shape[2]
        rows, faces = [], []
        for row, found in enumerate(self._stage.detect(images)):
            if len(found):
                face = found[np.argmax(found[:, 2] * found[:, 3])]
                if face_filter.accepts(face, width):
                    rows.append(row)
                    faces.append(face)
        if not rows:
            empty = np.zeros((0, self._stage.identity_dim), np.float32)
            return Embedded(np.zeros(0, np.int64), empty, empty, np.zeros((0, 15), np.float32))
        seen = [images[row] for row in rows]
        flipped = np.zeros((0, self._stage.identity_dim), np.float32)
        if mirror:
            mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in seen]
            flipped = self._stage.encode(mirrored, [mirror_detection(face, width) for face in faces])
        return Embedded(
            np.array(rows, np.int64),
            self._stage.encode(seen, faces),
            flipped,
            np.stack(faces).astype(np.float32),
        )


def mirror_detection(face: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """A detection [15] in the picture flipped left to right; boxes count pixels' edges, landmarks their centres."""
    mirrored = face.copy()
    mirrored[0] = width - face[0] - face[2]
    mirrored[4:14] = mirror_landmarks(face[4:14].reshape(5, 2), width).reshape(-1)
    return mirrored


def mirror_landmarks(points: NDArray[np.floating[Any]], width: int) -> NDArray[np.float64]:
    """Landmarks [5, 2] of the picture flipped left to right (pixel x becomes width - 1 - x)."""
    mirrored = points[MIRRORED].astype(np.float64)
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    return mirrored
