"""SCRFD, the detector of insightface's model packs (det_*.onnx), under plain onnxruntime.

Guo et al., "Sample and computation redistribution for efficient face detection", ICLR 2022. Pre-processing and decoding
follow insightface's documentation of its packs: RGB, (x - 127.5) / 128, two anchors per cell at strides 8, 16 and 32,
outputs as distances from the cell's corner in units of the stride.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineError
from id3pm.face.detect import UprightRule, non_maximum_suppression, pad_to
from id3pm.face.runtime import open_session


class Scrfd:
    """An SCRFD graph with landmarks: 9 outputs, for each of scores, boxes, landmarks the strides 8, 16, 32.

    Args:
        model: det_*.onnx of a pack; height and width are dynamic, as in all published packs.
        threads: See `id3pm.face.runtime.open_session`.
        score_threshold: Faces below this score are dropped (insightface's default).
        nms_threshold: Of two boxes that overlap by more, the better one stays (insightface's default).
    """

    STRIDES = (8, 16, 32)
    ANCHORS = 2
    at_own_size = False
    # Its weights have not been measured here, so no score is trusted alone (`sure` is above 1): all four quarter turns
    # are compared, and a face without a clearly best turn is refused.
    upright_rule = UprightRule(sure=2.0, lead=0.0, least=0.5, clear=1.0, close=0.03, margin=0.03, tilt=30.0)

    def __init__(
        self, model: Path, threads: int | None = None, score_threshold: float = 0.5, nms_threshold: float = 0.4
    ) -> None:
        self._session = open_session(model, threads)
        self._input = self._session.get_inputs()[0]
        self._score_threshold = score_threshold
        self._nms_threshold = nms_threshold
        outputs = len(self._session.get_outputs())
        if outputs != 3 * len(self.STRIDES):
            raise EngineError(
                f"{model.name} has {outputs} outputs: need an SCRFD detector with landmarks (9 outputs; the names of "
                "such files end in _kps or _bnkps, or belong to a pack such as buffalo_l)"
            )
        if any(isinstance(side, int) for side in self._input.shape[2:]):
            raise EngineError(f"{model.name} takes only {self._input.shape[2:]} pixels: need dynamic height and width")

    def detect_batch(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `id3pm.face.detect.FaceDetector.detect_batch`."""
        # Published packs fix the batch at 1 and flatten it away in the outputs: one picture per call.
        return [self._detect(image[None]) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        padded = pad_to(image, self.STRIDES[-1])
        pixels = (padded.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128.0
        outputs = self._session.run(None, {self._input.name: np.ascontiguousarray(pixels)})
        levels = []
        for level, stride in enumerate(self.STRIDES):
            score, box, kps = (outputs[level + 3 * kind].reshape(-1, size) for kind, size in enumerate((1, 4, 10)))
            columns = padded.shape[2] // stride
            cells = np.repeat(np.arange(len(score) // self.ANCHORS), self.ANCHORS)
            center = np.stack([cells % columns, cells // columns], axis=-1).astype(np.float32) * stride
            corner, size = center - box[:, :2] * stride, (box[:, :2] + box[:, 2:]) * stride
            landmarks = center[:, None] + kps.reshape(-1, 5, 2) * stride
            levels.append(np.concatenate([corner, size, landmarks.reshape(-1, 10), score], axis=-1))
        faces: NDArray[np.float32] = np.concatenate(levels)
        faces = faces[faces[:, 14] >= self._score_threshold]
        faces = faces[np.argsort(-faces[:, 14], kind="stable")]
        return faces[non_maximum_suppression(faces[:, :4], self._nms_threshold)]
