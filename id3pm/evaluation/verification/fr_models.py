"""FR models as verification protocols use them: a picture and its mirror image, vectors as the network gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import EngineError, InvalidInputError
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.dlib_network import DIM
from id3pm.face.encoders import load_models
from id3pm.face.manifest import FaceManifest, read_manifest
from id3pm.face.stage import FaceStage

ALIGNED = "arcface-112"
"""The alignment of the crops in insightface's `.bin` files."""
ENGINE_FOLDER = Path("face_embedding/1/engine")


class PairModel(Protocol):
    """An FR model that compares the pictures of pairs.

    Attributes:
        name: For reports.
        key: What its vectors depend on.
        centred: Whether cosines mean something only after a mean vector was subtracted, as with models that were
            trained on Euclidean distances.
    """

    name: str
    key: str
    centred: bool

    def views(self, images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        """Vectors of the main face in each picture.

        Args:
            images: uint8 [H, W, 3], RGB, of any sizes.
            aligned: They are crops with the alignment `ALIGNED`: models of that alignment need no detector.

        Returns:
            float32 [N, 2, D]: of the aligned face and of its mirror image; NaN where no face was found.
        """
        ...


class FaceEngineModel:
    """A face engine folder as an FR model.

    Args:
        folder: The folder, or the model repository that has it.
        threads: See `id3pm.face.runtime.open_session`.

    Raises:
        EngineMissingError: Nothing has been built there.
        EngineError: A file is damaged or does not fit.
    """

    centred = False

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        folder = folder / ENGINE_FOLDER if (folder / ENGINE_FOLDER).is_dir() else folder
        self.manifest: FaceManifest = read_manifest(folder)
        # Protocols say themselves how mirror images are joined and vectors scaled.
        as_they_are = dataclasses.replace(self.manifest.preprocessing, flip_average=False, l2_normalise=False)
        manifest = dataclasses.replace(self.manifest, preprocessing=as_they_are)
        detector, encoder = load_models(folder, manifest, threads)
        self._encoder, self._preprocessing = encoder, as_they_are
        self.stage = FaceStage(manifest.id_vector_model, detector, encoder, as_they_are, manifest.detection_size)
        self.name = manifest.id_vector_model
        self.key = f"{self.name} {manifest.models_key} views"

    def views(self, images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        """See `PairModel.views`."""
        views = np.full((len(images), 2, self.stage.identity_dim), np.nan, np.float32)
        found, crops = self._crops(images, aligned)
        if found:
            views[found, 0] = self._encoder.encode_batch(crops)
            views[found, 1] = self._encoder.encode_batch(np.ascontiguousarray(crops[:, :, ::-1]))
        return views

    def embed(self, images: Sequence[NDArray[np.uint8]], aligned: bool = False) -> NDArray[np.float32]:
        """ID vectors of pictures, [N, D], as the face stage gives them; arguments and NaN as in `views`."""
        if self.manifest.preprocessing.flip_average:
            return self.id_vectors(self.views(images, aligned))
        vectors = np.full((len(images), 1, self.stage.identity_dim), np.nan, np.float32)
        found, crops = self._crops(images, aligned)
        if found:
            vectors[found, 0] = self._encoder.encode_batch(crops)
        return self.id_vectors(vectors)

    def _crops(self, images: Sequence[NDArray[np.uint8]], aligned: bool) -> tuple[list[int], NDArray[np.uint8]]:
        """Which pictures have a face, and those faces, aligned: uint8 [F, H, W, 3]."""
        crops: dict[int, NDArray[np.uint8]] = {}
        if aligned and self._preprocessing.alignment == ALIGNED:
            crops = {row: _of_size(image, self._preprocessing.input_size) for row, image in enumerate(images)}
        else:
            for row, image in enumerate(images):
                if (face := self.main_face(image)) is not None:
                    crops[row] = self._preprocessing.crop(image, face)
        return list(crops), np.stack(list(crops.values())) if crops else np.empty((0, 1, 1, 3), np.uint8)

    def id_vectors(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """The ID vectors [N, D] of pictures with these views, as the face stage would give them."""
        preprocessing = self.manifest.preprocessing
        vectors = views.mean(axis=1) if preprocessing.flip_average else views[:, 0]
        if preprocessing.l2_normalise:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors, np.float32)

    def main_face(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """The face that a picture of a data set is about; see `main_face`."""
        return main_face(self.stage.detect(image[None])[0], (image.shape[0], image.shape[1]))


class DlibModel:
    """dlib's network as an FR model: its own alignment in every picture, crops too.

    Args:
        faces: Finds the faces.
    """

    centred = True

    def __init__(self, faces: FaceEngineModel) -> None:
        self._judge = DlibJudge(faces.stage, faces.manifest.models_key)
        self._faces = faces
        self.name = self._judge.name
        self.key = f"{self._judge.key} views"

    def views(self, images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        """See `PairModel.views`."""
        views = np.full((len(images), 2, DIM), np.nan, np.float32)
        for row, image in enumerate(images):
            face = self._faces.main_face(image)
            if face is not None:
                chip = self._judge.chip(image, face)
                views[row] = [self._judge.describe(chip), self._judge.describe(np.ascontiguousarray(chip[:, ::-1]))]
        return views


def main_face(faces: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32] | None:
    """The face [15] with the largest area less twice the squared distance from the middle; `None` without faces.

    As facenet's align_dataset_mtcnn.py chooses: LFW's pictures are of the person in the middle.

    Args:
        faces: [K, 15].
        size: Height and width of the picture.
    """
    if not len(faces):
        return None
    x, y, width, height = faces[:, :4].T
    far = (x + width / 2 - size[1] / 2) ** 2 + (y + height / 2 - size[0] / 2) ** 2
    best: NDArray[np.float32] = faces[np.argmax(width * height - 2.0 * far)]
    return best


def open_models(names: Sequence[str], training: FaceEngineModel, threads: int | None = None) -> list[PairModel]:
    """The FR models of a report: the training one, then the named ones.

    Args:
        names: `dlib`, or folders in which `id3pm build-faces` has built an FR model.
        training: The model that gives the ID vectors.
        threads: See `FaceEngineModel`.

    Raises:
        InvalidInputError: Two of them are the same.
        MissingExtraError: dlib is not installed.
        EngineError: A folder is damaged, or has no FR model.
    """
    models: list[PairModel] = [training]
    for name in names:
        try:
            model: PairModel = DlibModel(training) if name == "dlib" else FaceEngineModel(Path(name), threads)
        except EngineError as error:
            raise EngineError(f"--fr-model {name}: {error}; or give dlib") from error
        if model.name in [other.name for other in models]:
            raise InvalidInputError(f"--fr-model {name}: {model.name} is in the report already")
        models.append(model)
    return models


def _of_size(image: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
