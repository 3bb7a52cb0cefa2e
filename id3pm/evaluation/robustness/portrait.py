"""A face at one size with a coordinate system of its own, in which changes are described once for all faces.

Face coordinates: the origin lies between the eyes, u grows towards the right of the picture, v towards the chin, and
the distance between the eyes is 1. On an average face the nose tip is at (0, 0.57), the mouth at (0, 1.15), the chin
near (0, 1.9), the hairline near (0, -0.9), and the cheeks end near u = 1.1.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.errors import NoFaceError
from id3pm.evaluation.faces import face_square
from id3pm.face.align import ARCFACE_TEMPLATE, similarity_transform
from id3pm.face.stage import FaceStage

SIZE = 256
"""Side of a portrait in pixels: every change is defined at this size, whatever the photograph's."""
MARGIN = 1.45
"""Side of the square that is cut out of a photograph, in sides of the face's box: room for a hat and for turning."""

_EYE_TO_EYE = float(np.linalg.norm(ARCFACE_TEMPLATE[1] - ARCFACE_TEMPLATE[0]))
AVERAGE_FACE = (ARCFACE_TEMPLATE - ARCFACE_TEMPLATE[:2].mean(axis=0)) / _EYE_TO_EYE
"""The five landmarks of an average face in face coordinates, [5, 2]."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Portrait:
    """A face, framed.

    Attributes:
        image: uint8 [SIZE, SIZE, 3], RGB.
        landmarks: float64 [5, 2] in its pixels: eyes, nose tip, mouth corners, each pair from the left.
    """

    image: Pixels
    landmarks: NDArray[np.float64]

    @functools.cached_property
    def matrix(self) -> NDArray[np.float64]:
        """Face coordinates -> pixels, [2, 3]: the similarity that fits the landmarks best."""
        return similarity_transform(AVERAGE_FACE, self.landmarks)

    @property
    def unit(self) -> float:
        """Pixels in one unit of face coordinates."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points [..., 2] in face coordinates as pixels [..., 2]."""
        return _affine(points, self.matrix[:, :2], self.matrix[:, 2])

    def face(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points [..., 2] in pixels as face coordinates [..., 2]."""
        inverse: NDArray[np.float64] = np.linalg.inv(self.matrix[:, :2])
        return _affine(points, inverse, -inverse @ self.matrix[:, 2])

    @functools.cached_property
    def grid(self) -> NDArray[np.float64]:
        """Face coordinates (u, v) of every pixel, [SIZE, SIZE, 2]."""
        y, x = np.mgrid[:SIZE, :SIZE]
        return self.face(np.stack([x, y], axis=-1))

    def sample(self, source: NDArray[np.float64]) -> Pixels:
        """A picture with each pixel taken from these face coordinates, [SIZE, SIZE, 2]; edges are repeated."""
        places = self.pixels(source).astype(np.float32)
        picture: Pixels = cv2.remap(
            self.image, places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return picture


def portrait_of(photo: Pixels, stage: FaceStage) -> Portrait:
    """The largest face in a photograph.

    Args:
        photo: uint8 [H, W, 3], RGB.
        stage: Finds it.

    Raises:
        NoFaceError: There is none.
    """
    found = _largest(photo, stage)
    square = face_square(photo, found[:4], MARGIN, "edge")
    how = cv2.INTER_AREA if len(square) > SIZE else cv2.INTER_CUBIC
    image: Pixels = cv2.resize(square, (SIZE, SIZE), interpolation=how)
    return Portrait(image, _largest(image, stage)[4:14].reshape(5, 2).astype(np.float64))


def framed(photo: Pixels, stage: FaceStage) -> Pixels:
    """The same square as `portrait_of`; where no face is found, the middle of the picture.

    Returns:
        uint8 [SIZE, SIZE, 3].
    """
    try:
        return portrait_of(photo, stage).image
    except NoFaceError:
        height, width = photo.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        middle: Pixels = cv2.resize(photo[top : top + side, left : left + side], (SIZE, SIZE))
        return middle


def _affine(points: ArrayLike, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = np.matmul(np.asarray(points, np.float64), matrix.T)
    moved += offset
    return moved


def _largest(image: Pixels, stage: FaceStage) -> NDArray[np.float32]:
    (faces,) = stage.detect(image[None])
    if not len(faces):
        raise NoFaceError("no face was found: use a photograph in which the face looks towards the camera")
    largest: NDArray[np.float32] = faces[np.argmax(faces[:, 2] * faces[:, 3])]
    return largest
