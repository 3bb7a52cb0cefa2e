"""MTCNN, the detector of most FR models of the paper, in numpy around three small ONNX graphs.

Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", IEEE SPL 2016.
Every step is facenet-pytorch's `detect_face`, down to its rounding, since a box that moves by a pixel moves the ID
vector; golden values from it are in the tests. Three networks search the picture: P-Net at every place and size, R-Net
and O-Net in the boxes that the network before accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.face.detect import DETECTION_SIZE, UprightRule, non_maximum_suppression
from id3pm.face.runtime import open_session

Floats = NDArray[np.float32]
WINDOW = 12
"""Height and width of P-Net's window, in pixels of the scaled picture."""
STRIDE = 2
"""Steps between windows."""
BATCH = 256
"""Crops in one call of a network."""


class Mtcnn:
    """The cascade with facenet-pytorch's defaults.

    Args:
        pnet: pnet.onnx as id3pm build-faces writes it: [N, 3, H, W] to regressions and probabilities.
        rnet: rnet.onnx: [N, 3, 24, 24] to regressions and probabilities.
        onet: onet.onnx: [N, 3, 48, 48] to regressions, landmarks and probabilities.
        threads: See `id3pm.face.runtime.open_session`.
        min_face_size: Shortest side of a face that is looked for, in pixels.
        thresholds: Least probability of a face after each network.
        factor: Between one scale of the picture and the next.
    """

    at_own_size = True
    upright_rule = UprightRule(sure=0.999, lead=-1.0, least=0.9, clear=0.999, close=0.0005, margin=0.002, tilt=40.0)

    def __init__(
        self,
        pnet: Path,
        rnet: Path,
        onet: Path,
        threads: int | None = None,
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ) -> None:
        self._pnet, self._rnet, self._onet = (open_session(model, threads) for model in (pnet, rnet, onet))
        self._scale = WINDOW / min_face_size
        self._thresholds = thresholds
        self._factor = factor

    def detect_batch(self, images: NDArray[np.uint8]) -> list[Floats]:
        """See `id3pm.face.detect.FaceDetector.detect_batch`."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Floats:
        picture = Picture(image)
        boxes = self._propose(picture)
        boxes, crops = _crops(picture, boxes, 24)
        if not len(boxes):
            return np.empty((0, DETECTION_SIZE), np.float32)
        regressions, probabilities = _run(self._rnet, crops)
        boxes, regressions = _passed(boxes, probabilities[:, 1], self._thresholds[1], regressions)
        kept = _suppress(boxes, 0.7)
        boxes, crops = _crops(picture, _square(_regressed(boxes[kept], regressions[kept])), 48)
        if not len(boxes):
            return np.empty((0, DETECTION_SIZE), np.float32)
        regressions, landmarks, probabilities = _run(self._onet, crops)
        boxes, answers = _passed(
            boxes, probabilities[:, 1], self._thresholds[2], np.concatenate([regressions, landmarks], axis=1)
        )
        across, down = (boxes[:, axis + 2] - boxes[:, axis] + 1 for axis in (0, 1))
        x = across[:, None] * answers[:, 4:9] + boxes[:, 0:1] - 1
        y = down[:, None] * answers[:, 9:14] + boxes[:, 1:2] - 1
        boxes = _regressed(boxes, answers[:, :4])
        points = np.stack([x, y], axis=-1).reshape(-1, 10)
        faces = np.concatenate([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2], points, boxes[:, 4:5]], axis=1)
        return np.asarray(faces[_suppress_inside(boxes, 0.7)], dtype=np.float32)

    def _propose(self, picture: Picture) -> Floats:
        """P-Net's boxes [K, 5] as x1, y1, x2, y2, score; square."""
        found = [np.empty((0, 9), np.float32)]
        scale, side = self._scale, min(picture.height, picture.width) * self._scale
        while side >= WINDOW:
            size = (int(picture.height * scale + 1), int(picture.width * scale + 1))
            whole = picture.resized((0, 0, picture.width, picture.height), size)
            regressions, probabilities = self._pnet.run(None, {"input": _normalised(whole[None])})
            boxes = _windows(regressions[0], probabilities[0, 1], scale, self._thresholds[0])
            found.append(boxes[_suppress(boxes, 0.5)])
            scale, side = scale * self._factor, side * self._factor
        boxes = np.concatenate(found)
        boxes = boxes[_suppress(boxes, 0.7)]
        sides = boxes[:, [2, 3, 2, 3]] - boxes[:, [0, 1, 0, 1]]
        return _square(np.concatenate([boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]], axis=1))


class Picture:
    """A picture as its integral image, so that averages over any rectangle cost four look-ups.

    Args:
        image: uint8 [H, W, 3].
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        sums = image.astype(np.int64).cumsum(axis=0).cumsum(axis=1)
        self._sums = np.pad(sums, ((1, 0), (1, 0), (0, 0)))

    def resized(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> Floats:
        """A rectangle in another size: every pixel is the average of what it covers (PyTorch's `area` mode).

        Args:
            box: Left, top, right and bottom in whole pixels, inside the picture.
            size: Height and width.

        Returns:
            float32 [*size, 3], 0..255.
        """
        left, top, right, bottom = box
        first_row, last_row = _bins(top, bottom, size[0])
        first_column, last_column = _bins(left, right, size[1])
        rows = self._sums[last_row] - self._sums[first_row]
        sums = rows[:, last_column] - rows[:, first_column]
        areas = np.outer(last_row - first_row, last_column - first_column)
        return np.asarray(sums / areas[..., None], dtype=np.float32)


def _bins(start: int, end: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last (exclusive) pixel of each of `count` bins that cover start .. end, overlapping where they must."""
    index, length = np.arange(count), end - start
    return start + index * length // count, start - (-(index + 1) * length // count)


def _normalised(pictures: Floats) -> Floats:
    """[N, H, W, 3], 0..255, as the networks take them."""
    return np.ascontiguousarray((pictures.transpose(0, 3, 1, 2) - np.float32(127.5)) * np.float32(0.0078125))


def _run(session: Any, crops: Floats) -> list[Floats]:
    parts = [session.run(None, {"input": crops[start : start + BATCH]}) for start in range(0, len(crops), BATCH)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _windows(regressions: Floats, probabilities: Floats, scale: float, threshold: float) -> Floats:
    """P-Net's windows that may show a face, in pixels of the picture: [K, 9], box, score and regressions."""
    y, x = np.nonzero(probabilities >= np.float32(threshold))
    corner = STRIDE * np.stack([x, y], axis=1).astype(np.float32)
    first = np.floor((corner + np.float32(1)) / np.float32(scale))
    last = np.floor((corner + np.float32(WINDOW)) / np.float32(scale))
    return np.concatenate([first, last, probabilities[y, x, None], regressions[:, y, x].T], axis=1)


def _passed(boxes: Floats, scores: Floats, threshold: float, answers: Floats) -> tuple[Floats, Floats]:
    """The boxes whose new score is above the threshold, with it, and the network's other answers for them."""
    kept = scores > np.float32(threshold)
    return np.concatenate([boxes[kept, :4], scores[kept, None]], axis=1), answers[kept]


def _crops(picture: Picture, boxes: Floats, size: int) -> tuple[Floats, Floats]:
    """The boxes that touch the picture, and their part of it: [K, 5] and [K, 3, size, size]."""
    whole = np.trunc(boxes[:, :4]).astype(np.int64)  # columns and rows are counted from 1, both ends belong to the box
    first = np.maximum(whole[:, :2], 1) - 1
    last = np.minimum(whole[:, 2:], (picture.width, picture.height))
    touching = np.nonzero((last > first).all(axis=1))[0]
    crops = [picture.resized((*first[row], *last[row]), (size, size)) for row in touching]
    return boxes[touching], _normalised(np.stack(crops)) if crops else np.empty((0, 3, size, size), np.float32)


def _regressed(boxes: Floats, regressions: Floats) -> Floats:
    """Corners moved by the network's answer, which is in units of the box's sides."""
    size = boxes[:, [2, 3, 2, 3]] - boxes[:, [0, 1, 0, 1]] + 1
    return np.concatenate([boxes[:, :4] + regressions * size, boxes[:, 4:5]], axis=1)


def _square(boxes: Floats) -> Floats:
    """The squares around the boxes' middles, with the longer sides."""
    size = boxes[:, 2:4] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side, boxes[:, 4:5]], axis=1)


def _suppress(boxes: Floats, threshold: float) -> NDArray[np.intp]:
    """Non-maximum suppression by intersection over union: indices of what stays, best first."""
    order = np.argsort(-boxes[:, 4], kind="stable")
    best_first = np.concatenate([boxes[order, :2], boxes[order, 2:4] - boxes[order, :2]], axis=1)
    return order[non_maximum_suppression(best_first, threshold)]


def _suppress_inside(boxes: Floats, threshold: float) -> NDArray[np.intp]:
    """The same by intersection over the smaller of two boxes; sides are counted with both ends."""
    remaining = np.argsort(-boxes[:, 4], kind="stable")
    areas = (boxes[:, 2:4] - boxes[:, :2] + 1).prod(axis=1)
    kept = []
    while remaining.size:
        best, rest = remaining[0], remaining[1:]
        kept.append(best)
        overlap = np.minimum(boxes[best, 2:4], boxes[rest, 2:4]) - np.maximum(boxes[best, :2], boxes[rest, :2]) + 1
        shared = np.clip(overlap, 0, None).prod(axis=1)
        remaining = rest[shared <= threshold * np.minimum(areas[best], areas[rest])]
    return np.array(kept, dtype=np.intp)
