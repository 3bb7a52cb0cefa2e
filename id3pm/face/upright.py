"""Finds which way up the face in a photograph is: the turn at which the detector scores it highest.

Detectors also find faces on their side or upside down, and place the landmarks as if the face were upright: the ID
vector is then a stranger's. Their scores distinguish the turns, most clearly in a crop in which the face has a fixed
size. docs/face_models.md has the measurements behind the numbers here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import MissingExtraError
from id3pm.face.detect import FaceDetector, UprightRule
from id3pm.installation import how_to_install

QUARTERS = (0, 90, 180, 270)
"""Turns in which a whole photograph is searched for faces, in degrees counter-clockwise."""
NEAR = (-30, 0, 30)
"""Turns at which a face is scored first: an upright one scores highest at 0."""
AROUND = tuple(range(-60, 61, 15))
"""Turns at which a doubtful face is scored; with those of the other three quarters, every tilt is among them."""
CROP = 160
"""Side of the scored crops in pixels."""
CROP_FACES = 2.0
"""Side of a crop in longer sides of the face's box."""
TIE = 0.02
"""Scores that differ by less may be those of the same face, seen from two quarters."""
SAME = 45.0
"""Turns of two quarters that differ by at most so many degrees are of the same face."""
WIDE = 60.0
"""The same where both score alike."""
PATCH = 512
"""Largest side, in pixels, of the turned picture that a tilted face is cut out as."""
PATCH_FACES = 2.5
"""Its side in longer sides of the face's box."""


@dataclasses.dataclass(frozen=True)
class Peak:
    """The best of a face's scores at turns within 60 degrees.

    Attributes:
        angle: Degrees counter-clockwise by which the face must be turned to be upright: the middle of the peak.
        score: The detector's, 0 .. 1; 0 where it found no face at any turn.
    """

    angle: float
    score: float


def is_upright(detector: FaceDetector, image: NDArray[np.uint8], face: NDArray[np.float32], rule: UprightRule) -> bool:
    """Whether the quick check, three crops, shows an upright face without doubt.

    Args:
        detector: The detector that found the face.
        image: uint8 [H, W, 3], RGB.
        face: A detection [15] in its pixels.
        rule: The detector's.
    """
    left, middle, right = turned_scores(detector, image, face, NEAR)
    return bool(middle >= rule.sure and middle >= max(left, right) + rule.lead)


def find_peak(detector: FaceDetector, image: NDArray[np.uint8], face: NDArray[np.float32]) -> Peak:
    """The turn within 60 degrees at which a face scores highest; arguments as of `is_upright`.

    The angle is the mean of the turns around the best one, weighted by how near to the best score they come.
    """
    scores = turned_scores(detector, image, face, AROUND)
    best = int(scores.argmax())
    if scores[best] <= 0.0:
        return Peak(0.0, 0.0)
    part = slice(max(best - 2, 0), best + 3)
    weights = np.clip(scores[part] - scores[best] + 0.05, 0.0, None)
    return Peak(float(np.average(AROUND[part], weights=weights)), float(scores[best]))


def turned_scores(
    detector: FaceDetector, image: NDArray[np.uint8], face: NDArray[np.float32], turns: Sequence[int]
) -> NDArray[np.float64]:
    """The detector's score of one face at every turn, float64 [len(turns)]; 0 where it finds none in the middle."""
    crops = np.stack([turned_crop(image, face, turn, CROP, CROP_FACES)[0] for turn in turns])
    scores = np.zeros(len(turns))
    for row, found in enumerate(detector.detect_batch(crops)):
        from_middle = np.hypot(*(found[:, :2] + found[:, 2:4] / 2 - CROP / 2).T)
        scores[row] = found[from_middle < CROP / 5, 14].max(initial=0.0)
    return scores


def turned_crop(
    image: NDArray[np.uint8], face: NDArray[np.float32], turn: float, size: int, faces: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A square around a face, turned; black where the picture ends.

    Args:
        image: uint8 [H, W, 3].
        face: A detection [15] in its pixels.
        turn: Degrees counter-clockwise.
        size: Side of the square in pixels.
        faces: Its side in longer sides of the face's box.

    Returns:
        uint8 [size, size, 3], and the transform from pixels of the picture to those of the crop, float64 [2, 3].
    """
    cv2 = _opencv()
    x, y, width, height = (float(value) for value in face[:4])
    side = max(width, height, 1.0) * faces
    middle = np.array([x + width / 2, y + height / 2])
    # Only the face's surroundings are touched, as far as a turned square reaches: photographs are large.
    reach = side / np.sqrt(2.0) + 2.0
    left, top = np.clip(np.floor(middle - reach), 0, (image.shape[1] - 1, image.shape[0] - 1)).astype(int)
    right, bottom = np.maximum(np.ceil(middle + reach).astype(int), (left + 1, top + 1))
    part = image[top:bottom, left:right]
    factor = max(int(side / size), 1)
    if factor > 1:  # average before sampling, which alone would skip pixels
        across, down = -(-part.shape[1] // factor), -(-part.shape[0] // factor)
        edges = (0, down * factor - part.shape[0], 0, across * factor - part.shape[1])
        part = cv2.resize(
            cv2.copyMakeBorder(part, *edges, cv2.BORDER_REPLICATE), (across, down), interpolation=cv2.INTER_AREA
        )
    # Coordinates count the centres of pixels, boxes their edges.
    inside = ((middle - (left, top)) / factor - 0.5).tolist()
    matrix = cv2.getRotationMatrix2D(inside, turn, size * factor / side)
    matrix[:, 2] += size / 2 - 0.5 - np.array(inside)
    crop: NDArray[np.uint8] = cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR)
    from_photo = np.array([[1 / factor, 0, (0.5 - left) / factor - 0.5], [0, 1 / factor, (0.5 - top) / factor - 0.5]])
    return crop, matrix[:, :2] @ from_photo + np.array([[0, 0, 1], [0, 0, 1]]) * matrix[:, 2:]


def quarter_back(face: NDArray[np.float32], turn: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """A detection [15] in `np.rot90(photo, turn // 90)`, in pixels of the photo of this (height, width)."""
    height, width = size
    x, y, w, h = face[:4].tolist()
    points = face[4:14].reshape(5, 2)
    back = face.copy()
    match turn % 360:
        case 90:
            back[:4] = width - y - h, x, h, w
            points = np.stack([width - 1 - points[:, 1], points[:, 0]], axis=1)
        case 180:
            back[:4] = width - x - w, height - y - h, w, h
            points = np.array([width - 1, height - 1], np.float32) - points
        case 270:
            back[:4] = y, height - x - w, h, w
            points = np.stack([points[:, 1], height - 1 - points[:, 0]], axis=1)
    back[4:14] = points.reshape(-1)
    return back


def crop_back(face: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """A detection [15] in a crop of `turned_crop`, in pixels of the photo; its box is the one around the turned box."""
    inverse = np.linalg.inv(matrix[:, :2])

    def moved(points: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray((points - matrix[:, 2]) @ inverse.T)

    x, y, width, height = face[:4]
    corners = moved(np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]]) - 0.5) + 0.5
    back = face.copy()
    back[:2], back[2:4] = corners.min(axis=0), np.ptp(corners, axis=0)
    back[4:14] = moved(face[4:14].reshape(5, 2)).reshape(-1)
    return back


def one_way_up(peaks: Sequence[tuple[int, Peak]], rule: UprightRule) -> tuple[int, Peak] | None:
    """The quarter turn at which a face scores highest, and its peak there; `None` where that is not clear.

    Args:
        peaks: Quarter turns and peaks, the stored way first.
        rule: The detector's.
    """
    top = max(peaks, key=lambda item: item[1].score)
    # A face with similar scores over a wide range of turns also has high scores in the neighbouring quarters: of equal
    # scores near the highest, the one in the middle of its quarter is the face.
    seen = [item for item in peaks if _apart(item, top) <= WIDE and item[1].score >= top[1].score - TIE]
    chosen = min(seen, key=lambda item: abs(item[1].angle))
    same = [item for item in peaks if _apart(item, chosen) <= SAME]
    score = max(peak.score for _, peak in same)
    others = max((item[1].score for item in peaks if item not in same), default=0.0)
    margin = rule.close if score >= rule.clear else rule.margin
    return chosen if score >= max(rule.least, others + margin) else None


def _apart(first: tuple[int, Peak], second: tuple[int, Peak]) -> float:
    """Degrees between the turns of two peaks of the whole photograph."""
    difference = first[0] + first[1].angle - second[0] - second[1].angle
    return abs((difference + 180.0) % 360.0 - 180.0)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"face detection needs OpenCV: {how_to_install('face')}") from error
    return cv2
