"""Dense face landmarks: MediaPipe's Face Mesh under OpenVINO.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. The network is the file
`face_landmark.tflite` of the PyPI wheel `mediapipe` (Apache-2.0); nothing else of that wheel is used or imported, so it
may be installed without its dependencies.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineError, EngineMissingError, InvalidInputError, MissingExtraError
from id3pm.face.align import similarity_transform
from id3pm.installation import how_to_install

POINTS = 468
CROP = 192  # side of the network's input in pixels
BATCH = 32  # faces in one call; more are no faster
MODEL = "modules/face_landmark/face_landmark.tflite"
INSTALL = f"{how_to_install('attributes')} && pip install --no-deps mediapipe==0.10.21"
FIRST_TEMPLATE = np.array([[66.0, 78.0], [126.0, 78.0], [96.0, 112.0], [72.0, 138.0], [120.0, 138.0]])
"""Where the first crop puts a detector's five landmarks."""
MARGIN = 1.5  # side of the second crop in longer sides of the box of all landmarks, as MediaPipe's tracking has it
RIGHT_EYE, LEFT_EYE = 33, 263  # outer corners


class FaceMesh:
    """The landmark network.

    Every face is measured twice: the first crop follows the detector's five landmarks, the second the landmarks found
    in the first. So the result depends little on the detector.

    Args:
        model: Its `.tflite` file; `None` takes the one of the installed `mediapipe` wheel.
        threads: CPU threads; `None` for all cores.

    Raises:
        MissingExtraError: OpenVINO or the wheel is not installed.
        EngineMissingError: There is no such file.
        EngineError: OpenVINO cannot read it.
    """

    def __init__(self, model: Path | None = None, threads: int | None = None) -> None:
        file = packaged_model() if model is None else model
        if not file.is_file():
            raise EngineMissingError(f"there is no {file.name}: {INSTALL}")
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingExtraError(f"face landmarks need OpenVINO: {INSTALL}") from error
        # bf16, OpenVINO's choice on some processors, would move landmarks by a pixel.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            core = ov.Core()
            network = core.read_model(str(file))
            network.reshape([-1, CROP, CROP, 3])
            self._network = core.compile_model(network, "CPU", options)
        except RuntimeError as error:
            raise EngineError(f"{file.name} cannot be loaded by OpenVINO: {error}") from error

    def find(
        self, images: NDArray[np.uint8], landmarks: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The landmarks of one face in each picture.

        Args:
            images: uint8 [N, H, W, 3], RGB.
            landmarks: [N, 5, 2], a detector's, in pixels; see `id3pm.face.detect.DETECTION_SIZE`.

        Returns:
            float64 [N, 468, 3]: x, y in pixels of the picture, z in the same unit, smaller is nearer to the viewer; and
            float64 [N]: confidence of the network that it saw a face, 0 .. 1.

        Raises:
            InvalidInputError: The shapes do not fit.
        """
        if images.ndim != 4 or landmarks.shape != (len(images), 5, 2):
            raise InvalidInputError(f"pictures {images.shape} and landmarks {landmarks.shape}: need [N, 5, 2] for N")
        points, scores = np.zeros((len(images), POINTS, 3)), np.zeros(len(images))
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            moves = [similarity_transform(five, FIRST_TEMPLATE) for five in landmarks[part]]
            seen, _ = self._measure(images[part], moves)
            moves = [_around(face) for face in seen]
            points[part], scores[part] = self._measure(images[part], moves)
        return points, scores

    def _measure(
        self, images: NDArray[np.uint8], moves: list[NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Landmarks and scores as one pass over crops gives them; each move [2, 3] takes a picture to its crop."""
        crops = np.stack([_crop(image, move) for image, move in zip(images, moves, strict=True)])
        outputs = list(self._network(crops.astype(np.float32) / 255.0).values())
        found = outputs[0].reshape(-1, POINTS, 3).astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(-outputs[1].reshape(-1).astype(np.float64)))
        return np.stack([_back(face, move) for face, move in zip(found, moves, strict=True)]), scores


def packaged_model() -> Path:
    """The network's file in the installed `mediapipe` wheel, found without importing it.

    Raises:
        MissingExtraError: The wheel is not installed.
    """
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        raise MissingExtraError(f"face landmarks need the model in PyPI's mediapipe: {INSTALL}")
    return Path(found.origin).parent / MODEL


def _crop(image: NDArray[np.uint8], move: NDArray[np.float64]) -> NDArray[np.uint8]:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"face landmarks need OpenCV: {how_to_install('face')}") from error
    scale = float(np.hypot(move[0, 0], move[1, 0]))
    if scale < 0.5:  # average whole blocks of pixels first: sampling alone would skip some
        factor = int(1.0 / scale)
        image = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        # Coordinates count the centres of pixels.
        offset = move[:, :2] @ np.full(2, (factor - 1) / 2)
        move = np.concatenate([move[:, :2] * factor, (move[:, 2] + offset)[:, None]], axis=1)
    flags = cv2.INTER_CUBIC if scale > 1.0 else cv2.INTER_LINEAR
    crop: NDArray[np.uint8] = cv2.warpAffine(image, move, (CROP, CROP), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return crop


def _back(points: NDArray[np.float64], move: NDArray[np.float64]) -> NDArray[np.float64]:
    """Landmarks of a crop in pixels of its picture."""
    flat = (points[:, :2] - move[:, 2]) @ np.linalg.inv(move[:, :2]).T
    depth = points[:, 2] / np.hypot(move[0, 0], move[1, 0])
    return np.concatenate([flat, depth[:, None]], axis=1)


def _around(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The move [2, 3] to a crop around all landmarks, in which the line of the eyes is level."""
    along = points[LEFT_EYE, :2] - points[RIGHT_EYE, :2]
    cosine, sine = along / max(float(np.hypot(*along)), 1e-6)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    level = points[:, :2] @ turn.T
    low, high = level.min(axis=0), level.max(axis=0)
    scale = CROP / (MARGIN * max(float((high - low).max()), 1e-6))
    return np.concatenate([scale * turn, (CROP / 2 - scale * (low + high) / 2)[:, None]], axis=1)
