"""Appearance labels (skin, hair, ...) from the pixels of a face and five landmarks.

The labels are crude on purpose. They need no further network and are the same for photographs, the training set and
generated faces, so the effect of a change of an ID vector can be measured in the picture. Places on the face are given
in its own frame: from the middle between the eyes, x in distances between the eyes towards the person's left, y in
distances from the eyes to the mouth, downwards.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.face.detect import DETECTION_SIZE

Floats = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
PATCH = 0.09
"""Half the side of the square that is measured around a place, in distances between the eyes."""
SAMPLES = 5  # along its side
CHEEKS = ((-0.45, 0.55), (0.45, 0.55))
FOREHEAD = ((0.0, -0.45),)
HAIR = ((0.0, -1.0), (-0.4, -0.95), (0.4, -0.95))


@dataclasses.dataclass(frozen=True)
class _Face:
    """Pictures of one size, uint8 [N, H, W, 3], and landmarks float64 [N, 5, 2] in their pixels."""

    images: NDArray[np.uint8]
    landmarks: Floats

    @property
    def across(self) -> Floats:
        """From the right eye to the left one, [N, 2]."""
        return np.asarray(self.landmarks[:, 1] - self.landmarks[:, 0])

    @property
    def down(self) -> Floats:
        """From the middle between the eyes to that of the mouth, [N, 2]."""
        return np.asarray(self.landmarks[:, 3:5].mean(axis=1) - self.landmarks[:, 0:2].mean(axis=1))

    def luma(self, places: tuple[tuple[float, float], ...]) -> Floats:
        """Mean over places of the median brightness around each, 0 .. 255, [N]."""
        eyes = self.landmarks[:, 0:2].mean(axis=1)
        height, width = self.images.shape[1:3]
        offsets = np.linspace(-PATCH, PATCH, SAMPLES)
        rows = np.arange(len(self.images))
        found = []
        for x, y in places:
            grey = []
            for dx in offsets:
                for dy in offsets:
                    # The patch is square in the picture whatever the face's proportions.
                    point = eyes + x * self.across + y * self.down + dx * self.across + dy * _turned(self.across)
                    column = np.clip(np.rint(point[:, 0]), 0, width - 1).astype(np.int64)
                    line = np.clip(np.rint(point[:, 1]), 0, height - 1).astype(np.int64)
                    grey.append(self.images[rows, line, column] @ LUMA)
            found.append(np.median(grey, axis=0))
        return np.asarray(np.mean(found, axis=0))


def _turned(vectors: Floats) -> Floats:
    return np.stack([-vectors[:, 1], vectors[:, 0]], axis=1)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.linalg.norm(above, axis=1) / np.linalg.norm(below, axis=1))


@dataclasses.dataclass(frozen=True)
class Label:
    """A quantity that is measured on a face.

    Attributes:
        text: Description, with its unit.
        low: What a small value looks like.
        high: What a large value looks like.
        measure: A face -> float64 [N].
    """

    text: str
    low: str
    high: str
    measure: Callable[[_Face], Floats]


LABELS: Mapping[str, Label] = types.MappingProxyType(
    {
        "cheek_brightness": Label(
            "brightness of the cheeks, grey levels", "dark", "bright", lambda face: face.luma(CHEEKS)
        ),
        "hair_brightness": Label(
            "brightness above the forehead less that of the cheeks, grey levels",
            "dark hair",
            "bright or no hair",
            lambda face: face.luma(HAIR) - face.luma(CHEEKS),
        ),
        "fringe": Label(
            "brightness of the cheeks less that of the forehead, grey levels",
            "bare forehead",
            "fringe",
            lambda face: face.luma(CHEEKS) - face.luma(FOREHEAD),
        ),
        "mouth": Label(
            "width of the mouth in distances between the eyes",
            "narrow",
            "wide",
            lambda face: _ratio(face.landmarks[:, 4] - face.landmarks[:, 3], face.across),
        ),
        "length": Label(
            "distance from eyes to mouth in distances between the eyes",
            "short face",
            "long face",
            lambda face: _ratio(face.down, face.across),
        ),
    }
)


def measure(name: str, images: NDArray[np.uint8], detections: NDArray[np.floating[Any]]) -> Floats:
    """One label of one face in each picture.

    Args:
        name: A key of `LABELS`.
        images: uint8 [N, H, W, 3], RGB.
        detections: [N, 15], see `id3pm.face.detect.DETECTION_SIZE`; NaN where there is no face.

    Returns:
        float64 [N]; NaN where there is no face, or its eyes or its eyes and mouth coincide.

    Raises:
        InvalidInputError: There is no such label, or the arrays do not fit each other.
    """
    if name not in LABELS:
        raise InvalidInputError(f"label {name!r}: choose one of {', '.join(LABELS)}")
    if images.dtype != np.uint8 or images.ndim != 4 or detections.shape != (len(images), DETECTION_SIZE):
        raise InvalidInputError(
            f"images are {images.dtype} {images.shape}, detections {detections.shape}: need uint8 [N, H, W, 3] and "
            f"[N, {DETECTION_SIZE}]"
        )
    values = np.full(len(images), np.nan)
    landmarks = detections[:, 4:14].reshape(-1, 5, 2).astype(np.float64)
    face = _Face(images, landmarks)
    with np.errstate(invalid="ignore"):
        usable = (np.linalg.norm(face.across, axis=1) > 1.0) & (np.linalg.norm(face.down, axis=1) > 1.0)
    if usable.any():
        values[usable] = LABELS[name].measure(_Face(images[usable], landmarks[usable]))
    return values
