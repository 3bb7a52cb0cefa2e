"""Detection attempts: the scales and frames at which a detector searches a photograph, until a face is found."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import MissingExtraError
from id3pm.installation import how_to_install

OWN_SIZE = 2048
"""Longer side in pixels above which every detector gets a smaller picture: its time grows with the area."""


class Attempt(Protocol):
    """One attempt at finding a face."""

    def frame(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture [H, W, 3] as input of the detector."""
        ...

    def to_photo(self, faces: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Faces [K, 15] found in the framed picture, in pixels of the photo of this (height, width)."""
        ...


@dataclasses.dataclass(frozen=True)
class Scaled:
    """The picture's longer side is scaled to `size` inside a black border."""

    size: int
    border: int = 0

    def __str__(self) -> str:
        return f"{self.size} px" + " with a border" * (self.border > 0)

    def frame(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Attempt.frame`."""
        cv2 = _opencv()
        height, width = image.shape[:2]
        scale = self._scale((height, width))
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)
        return np.pad(scaled, ((self.border, self.border), (self.border, self.border), (0, 0)))

    def to_photo(self, faces: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """See `Attempt.to_photo`."""
        faces, scale = faces.copy(), self._scale(size)
        points = [0, 1, *range(4, 14)]
        # Resizing aligns the outer edges of pixels, so their centres, which coordinates count, move by half a pixel.
        faces[:, points] = (faces[:, points] - self.border + 0.5) / scale - 0.5
        faces[:, 2:4] /= scale
        return faces

    def _scale(self, size: tuple[int, int]) -> float:
        return self.size / max(size)


@dataclasses.dataclass(frozen=True)
class Square:
    """The picture in the upper left corner of a black square, as large as it fits, as insightface's detector sees it.

    As its `detect` does it: the longer side becomes `size` in small pictures too, the shorter one is cut down to whole
    pixels, sampling is bilinear and averages nothing, and coordinates are divided by the scale of the height.
    """

    size: int

    def __str__(self) -> str:
        return f"{self.size} px in a square"

    def frame(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Attempt.frame`."""
        height, width = self._fitted(image.shape[0], image.shape[1])
        square = np.zeros((self.size, self.size, 3), np.uint8)
        square[:height, :width] = _opencv().resize(image, (width, height))
        return square

    def to_photo(self, faces: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """See `Attempt.to_photo`."""
        faces = faces.copy()
        faces[:, :14] /= self._fitted(*size)[0] / size[0]
        return faces

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        ratio = height / width
        if ratio > 1:
            return self.size, max(int(self.size / ratio), 1)
        return max(int(self.size * ratio), 1), self.size


def detection_attempts(longer_side: int, at_own_size: bool, detection_size: int | None) -> tuple[Attempt, ...]:
    """Attempts in order; the next one is made only for pictures in which no face was found so far.

    Where the FR model's manifest gives a `detection_size`, the first attempt is a `Square` of that size. With a
    detector that works at the picture's own size it is that size, up to `OWN_SIZE` pixels. For others:

    1. Pictures up to 256 px, as the two diffusion stages make them, at 192 px: a 64 px face is too small for the
       detector, and its 64 px and 256 px versions should be aligned alike. Others as they are, at most 640 px.
    2. At twice that size: small faces in large photos, soft faces in small ones.
    3. At 160 px inside a border: a face that fills or overfills the frame.

    Args:
        longer_side: Of the picture, in pixels.
        at_own_size: See `id3pm.face.detect.FaceDetector`.
        detection_size: See `id3pm.face.manifest.FaceManifest`.
    """
    framed = Scaled(160, 80)
    if detection_size is not None:
        # 128 px is the size that insightface added later, for faces that fill the picture.
        return Square(detection_size), Square(128), framed
    if at_own_size:
        first = min(longer_side, OWN_SIZE)
        return Scaled(first), Scaled(min(2 * first, OWN_SIZE)), framed
    first = 192 if longer_side <= 256 else min(longer_side, 640)
    return Scaled(first), Scaled(2 * first), framed


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"face detection needs OpenCV: {how_to_install('face')}") from error
    return cv2
