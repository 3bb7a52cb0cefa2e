"""Head pose and expression of generated faces, by the landmark network and by dlib, which training did not use."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.face.landmarks import FaceMesh
from id3pm.face.measures import measure
from id3pm.face.stage import FaceResult, FaceStage

MIN_SCORE = 0.5
PREDICTOR = "models/shape_predictor_68_face_landmarks.dat"
DLIB_SIZE = 256  # dlib's predictor wants larger faces than 64 px


class LandmarkJudge:
    """Measures generated faces.

    Args:
        stage: Finds them.
        mesh: The landmark network.
    """

    def __init__(self, stage: FaceStage, mesh: FaceMesh) -> None:
        self._stage = stage
        self._mesh = mesh
        self._predictor = _dlib_predictor()

    def look(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """The measures of `id3pm.face.measures` by name, [N] each; NaN where no face was found.

        Where dlib is installed, its own follow as `dlib yaw`, ..., in units of which only the order has a meaning.

        Args:
            images: uint8 [N, S, S, 3], RGB.
        """
        found = self._stage.embed_images(images)
        rows = [row for row, result in enumerate(found) if isinstance(result, FaceResult)]
        results: dict[str, NDArray[np.float64]] = {}
        if not rows:
            return results
        detections = np.stack([result.detection for result in found if isinstance(result, FaceResult)])
        points, scores = self._mesh.find(images[rows], detections[:, 4:14].reshape(-1, 5, 2))
        seen = dict(measure(points))
        if self._predictor is not None:
            seen |= self._second_judge(images[rows], detections)
        for name, values in seen.items():
            results[name] = np.full(len(images), np.nan)
            results[name][rows] = np.where(scores >= MIN_SCORE, values, np.nan)
        return results

    def _second_judge(
        self, images: NDArray[np.uint8], detections: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float64]]:
        dlib, predictor = self._predictor
        points = np.zeros((len(images), 68, 2))
        for row, (image, face) in enumerate(zip(images, detections, strict=True)):
            scale = DLIB_SIZE / image.shape[1]
            large = image.repeat(int(scale), axis=0).repeat(int(scale), axis=1) if scale >= 2 else image
            x, y, width, height = (face[:4] * (large.shape[1] / image.shape[1])).round().astype(int).tolist()
            # dlib's predictor was trained with boxes from the brows down.
            box = dlib.rectangle(x, y + height // 5, x + width, y + height)
            shape = predictor(np.ascontiguousarray(large), box)
            points[row] = [(part.x, part.y) for part in shape.parts()]
        return {f"dlib {name}": values for name, values in flat_measures(points).items()}


def flat_measures(points: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The same measures from 68 flat landmarks [N, 68, 2], [N] each; only their order has a meaning."""
    right, left = points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)
    along = left - right
    distance = np.linalg.norm(along, axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)

    def place(part: NDArray[np.float64]) -> NDArray[np.float64]:
        """Along and across the line of the eyes, from its middle, in distances between them: [N, 2]."""
        offset = part - (right + left) / 2
        placed: NDArray[np.float64] = np.stack([(offset * along).sum(1), (offset * across).sum(1)], axis=1)
        placed /= distance[:, None] ** 2
        return placed

    nose, mouth = place(points[:, 30]), place(points[:, 48:60].mean(axis=1))
    width = np.linalg.norm(points[:, 54] - points[:, 48], axis=1) / distance
    corners = (place(points[:, 48]) + place(points[:, 54]))[:, 1] / 2
    lids = np.linalg.norm(points[:, [37, 38, 43, 44]] - points[:, [41, 40, 47, 46]], axis=2).mean(axis=1)
    return {
        "roll": np.degrees(np.arctan2(along[:, 1], along[:, 0])),
        "yaw": nose[:, 0],
        "pitch": -nose[:, 1] / mouth[:, 1],
        "mouth_open": place(points[:, 66])[:, 1] - place(points[:, 62])[:, 1],
        "smile": width + 3.0 * (place(points[:, 62])[:, 1] - corners),
        "eyes_open": lids / distance,
        "brows": -(place(points[:, 17:27].mean(axis=1)))[:, 1],
    }


def _dlib_predictor() -> Any:
    """Dlib and its predictor of 68 landmarks, or `None` where they are not installed."""
    models = importlib.util.find_spec("face_recognition_models")  # importing it needs an old version of setuptools
    if models is None or models.origin is None or importlib.util.find_spec("dlib") is None:
        return None
    dlib = importlib.import_module("dlib")
    return dlib, dlib.shape_predictor(str(Path(models.origin).parent / PREDICTOR))


def pearson_r(requested: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Pearson's r of values [N] over the images in which a face was found; NaN where nothing varies."""
    seen = np.isfinite(measured)
    if seen.sum() < 3 or np.ptp(measured[seen]) == 0 or np.ptp(requested[seen]) == 0:
        return float("nan")
    return float(np.corrcoef(requested[seen], measured[seen])[0, 1])


def fitted_slope(requested: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Change of the measure [N] for a change of 1 of the value asked for [N], by least squares."""
    seen = np.isfinite(measured)
    return float(np.polyfit(requested[seen], measured[seen], 1)[0]) if seen.sum() >= 3 else float("nan")
