"""Face detection: the detector protocol, non-maximum suppression, and YuNet.

YuNet: Wu, Peng, Yu, "YuNet: A tiny millisecond-level face detector", Machine Intelligence Research 2023; OpenCV Zoo's
2023mar weights. The decoding equals OpenCV's `cv2.FaceDetectorYN`, with which the tests compare it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.face.runtime import open_session

DETECTION_SIZE = 15
"""Numbers per face: x, y, w, h; (x, y) of right eye, left eye, nose tip, right and left mouth corner; score.

Right and left are the person's, so the right eye is the left one in the picture. Pixels, score in [0, 1].
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UprightRule:
    """Rule that decides from a detector's scores which way up a face is; measured for each detector.

    Attributes:
        sure: A face that scores this much as it is stored, and less when turned by 30 degrees either way, is upright;
            above 1 none is, and all turns are compared.
        lead: By how much less; negative where landmarks follow a face that is tilted so far.
        least: Least score at the best turn; below it, the way up is unknown.
        clear: A face that scores this much at its best turn is most likely upright there.
        close: By how much it must then exceed the scores at turns that are more than 45 degrees off.
        margin: The same of a face that scores less.
        tilt: Degrees up to which the landmarks follow a tilted face, so that alignment straightens it.
    """

    sure: float
    lead: float
    least: float
    clear: float
    close: float
    margin: float
    tilt: float


class FaceDetector(Protocol):
    """Finds faces in RGB pictures.

    Attributes:
        at_own_size: It searches all scales itself, and its published results are for pictures at their own size. Other
            detectors need pictures scaled so that faces have the size of their training.
        upright_rule: How its scores decide which way up a face is.
    """

    at_own_size: bool
    upright_rule: UprightRule

    def detect_batch(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Faces of every picture.

        Args:
            images: uint8 [N, H, W, 3], RGB.

        Returns:
            N arrays float32 [K, 15] (see `DETECTION_SIZE`), highest score first; K may be 0.
        """
        ...


class YuNet:
    """OpenCV Zoo's YuNet under onnxruntime, for batches of pictures of one size.

    Args:
        model: yunet.onnx as id3pm build-faces writes it (dynamic batch, height and width).
        threads: See `id3pm.face.runtime.open_session`.
        score_threshold: Faces below this score are dropped. At 0.7, 99 % of 64 px generated faces are found, and
            none in pictures of galaxies, texts and textures (the best of those scores 0.65).
        nms_threshold: Of two boxes that overlap by more (intersection over union), the better one stays.
    """

    STRIDES = (8, 16, 32)
    MAX_CANDIDATES = 5000
    at_own_size = False
    upright_rule = UprightRule(sure=0.9, lead=0.01, least=0.75, clear=0.87, close=0.01, margin=0.03, tilt=15.0)

    def __init__(
        self, model: Path, threads: int | None = None, score_threshold: float = 0.7, nms_threshold: float = 0.3
    ) -> None:
        self._session = open_session(model, threads)
        self._names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in self.STRIDES]
        self._score_threshold = score_threshold
        self._nms_threshold = nms_threshold

    def detect_batch(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `FaceDetector.detect_batch`."""
        padded = pad_to(images, self.STRIDES[-1])
        bgr = np.ascontiguousarray(padded[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
        outputs = dict(zip(self._names, self._session.run(self._names, {"input": bgr}), strict=True))
        candidates = self._decode(outputs, width=padded.shape[2])
        return [self._select(rows) for rows in candidates]

    def _decode(self, outputs: dict[str, Any], width: int) -> NDArray[np.float32]:
        """All anchors' faces, float32 [N, anchors, 15]: one anchor per cell of the stride-8, 16 and 32 grids."""
        levels = []
        for stride in self.STRIDES:
            cls, obj, box, kps = (outputs[f"{kind}_{stride}"] for kind in ("cls", "obj", "bbox", "kps"))
            cells = np.arange(box.shape[1])
            grid = np.stack([cells % (width // stride), cells // (width // stride)], axis=-1).astype(np.float32)
            center = (grid + box[..., :2]) * stride
            size = np.exp(box[..., 2:]) * stride
            landmarks = (kps.reshape(*kps.shape[:2], 5, 2) + grid[:, None]) * stride
            score = np.sqrt(np.clip(cls, 0.0, 1.0) * np.clip(obj, 0.0, 1.0))
            levels.append(
                np.concatenate([center - size / 2, size, landmarks.reshape(*kps.shape[:2], 10), score], axis=-1)
            )
        return np.concatenate(levels, axis=1)

    def _select(self, candidates: NDArray[np.float32]) -> NDArray[np.float32]:
        faces = candidates[candidates[:, 14] >= self._score_threshold]
        faces = faces[np.argsort(-faces[:, 14], kind="stable")][: self.MAX_CANDIDATES]
        # OpenCV suppresses on boxes truncated to whole pixels; so do we, to keep exactly the faces it keeps.
        return faces[non_maximum_suppression(np.trunc(faces[:, :4]), self._nms_threshold)]


def non_maximum_suppression(boxes: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes that stay when each removes the later ones that overlap it too much.

    Args:
        boxes: [K, 4] as x, y, w, h, best first.
        threshold: Greatest allowed intersection over union.
    """
    areas = boxes[:, 2] * boxes[:, 3]
    corners = boxes[:, :2] + boxes[:, 2:]
    remaining, kept = np.arange(len(boxes)), []
    while remaining.size:
        best, rest = remaining[0], remaining[1:]
        kept.append(best)
        overlap = np.minimum(corners[best], corners[rest]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        intersection = np.clip(overlap, 0.0, None).prod(axis=1)
        union = areas[best] + areas[rest] - intersection
        # Boxes without area have no union: they overlap nothing.
        remaining = rest[intersection <= threshold * union]
    return np.array(kept, dtype=np.intp)


def pad_to(images: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Pictures [N, H, W, 3] with black rows below and columns to the right, to multiples of `multiple`."""
    _, height, width, _ = images.shape
    pad_y, pad_x = -height % multiple, -width % multiple
    return np.pad(images, ((0, 0), (0, pad_y), (0, pad_x), (0, 0)))
