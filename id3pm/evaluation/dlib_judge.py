"""dlib's ResNet (Davis King, 2017; public domain) as a judge that was not used in training.

It shares no data, loss, landmarks or alignment with the models of the face stage; only the rectangle in which to look
for the face comes from there, because dlib's own detectors miss one in five 64 px faces. dlib aligns the face; its
network runs in onnxruntime (`id3pm.evaluation.dlib_network`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import MissingExtraError
from id3pm.evaluation.dlib_network import CHIP_SIZE, DIM, DlibNetwork
from id3pm.face.stage import FaceStage
from id3pm.installation import how_to_install

CHIP_PADDING = 0.25  # what the network was trained on
LEAST_SIDE = 256
"""Smaller pictures are enlarged to this: dlib's landmark model measures in whole pixels."""
HOW = f"the independent evaluation model needs dlib: {how_to_install('evaluate')}, or choose --no-independent"


class DlibJudge:
    """dlib's face-recognition network with its five-point alignment.

    Args:
        stage: Finds the faces.
        key: Hash of its models.

    Raises:
        MissingExtraError: dlib or its models are not installed.
    """

    name = "dlib"
    independent = True
    centred = True  # trained on Euclidean distances

    def __init__(self, stage: FaceStage, key: str) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MissingExtraError(HOW) from error
        self.key = f"dlib {dlib.__version__} resnet_v1, faces by {stage.id_vector_model} {key}"
        models = _models_folder()
        self._dlib = dlib
        self._stage = stage
        self._landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._network = DlibNetwork(models / "dlib_face_recognition_resnet_model_v1.dat")

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `id3pm.evaluation.judges.Judge.embed`."""
        vectors = np.full((len(images), DIM), np.nan, np.float32)
        for row, faces in enumerate(self._stage.detect(images)):
            if len(faces):
                largest = faces[np.argmax(faces[:, 2] * faces[:, 3])]
                vectors[row] = self.describe(self.chip(images[row], largest))
        return vectors

    def describe(self, chip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The vector of an aligned face, float32 [128], as the network gives it."""
        return self._network.describe(chip)

    def chip(self, image: NDArray[np.uint8], face: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The aligned face, uint8 [150, 150, 3].

        Args:
            image: uint8 [H, W, 3], RGB.
            face: A detection, float32 [15] in its pixels.
        """
        height, width = image.shape[:2]
        scale = max(LEAST_SIDE / max(height, width), 1.0)
        size = (round(width * scale), round(height * scale))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        x, y, w, h = (face[:4] * scale).tolist()
        # dlib's detectors, with which its landmark model was trained, give squares.
        center_x, center_y, half = x + w / 2, y + h / 2, (w * h) ** 0.5 / 2
        box = self._dlib.rectangle(
            int(center_x - half), int(center_y - half), int(center_x + half), int(center_y + half)
        )
        chip: NDArray[np.uint8] = self._dlib.get_face_chip(
            image, self._landmarks(image, box), size=CHIP_SIZE, padding=CHIP_PADDING
        )
        return chip


def _models_folder() -> Path:
    # Found without being imported: the package's own code needs pkg_resources, which setuptools no longer has.
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(HOW)
    return Path(spec.submodule_search_locations[0]) / "models"
