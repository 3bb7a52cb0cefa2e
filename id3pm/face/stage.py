"""The face stage: photograph -> ID vector of the face in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import FaceError, InvalidInputError, NoFaceError
from id3pm.face.choice import MIN_FACE_SIZE, FacePolicy, check_policy, choose, largest
from id3pm.face.detect import DETECTION_SIZE, FaceDetector
from id3pm.face.detection_attempts import Attempt, detection_attempts
from id3pm.face.encoders import FaceEncoder, load_models
from id3pm.face.manifest import read_manifest
from id3pm.face.preprocessing import Preprocessing
from id3pm.face.upright import (
    PATCH,
    PATCH_FACES,
    QUARTERS,
    Peak,
    crop_back,
    find_peak,
    is_upright,
    one_way_up,
    quarter_back,
    turned_crop,
)
from id3pm.formats.photo_decoding import decode_photo

BATCH = 16
"""Pictures or crops in one call of a network: more needs memory and is no faster."""


@dataclasses.dataclass(frozen=True)
class FaceResult:
    """The face that was taken from one photo.

    Attributes:
        embedding: Its ID vector, float32 [D]; L2 norm 1 unless the FR model's pre-processing says otherwise.
        detection: float32 [15], pixels of the photo: see `id3pm.face.detect.DETECTION_SIZE`.
        faces: How many faces were found.
        turned: Degrees counter-clockwise by which the photo was turned so that the face is upright, -180 < turned
            <= 180; 0 where it was taken as it is stored.
    """

    embedding: NDArray[np.float32]
    detection: NDArray[np.float32]
    faces: int
    turned: int = 0


@dataclasses.dataclass(frozen=True)
class _View:
    """A photo turned by quarters, and what was found in it.

    Attributes:
        image: uint8 [H, W, 3].
        quarter: Degrees counter-clockwise by which it was turned.
        faces: All detections in its pixels, float32 [K, 15].
    """

    image: NDArray[np.uint8]
    quarter: int
    faces: NDArray[np.float32]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def face(self) -> NDArray[np.float32] | None:
        """The largest face, a detection [15] in pixels of `image`, if it is large enough to be used."""
        face = largest(self.faces) if len(self.faces) else None
        return None if face is None or min(face[2:4]) < MIN_FACE_SIZE else face


def _no_op() -> None:
    """The default of `alive`: does nothing."""


class FaceStage:
    """Detector, alignment and encoder of one FR method.

    Args:
        id_vector_model: Name of the method, as bundles name it.
        detector: Finds faces.
        encoder: Turns aligned faces into ID vectors.
        preprocessing: How faces are aligned for the encoder.
        detection_size: Side of the square that the detector sees pictures in; see `id3pm.face.manifest.FaceManifest`.
    """

    def __init__(
        self,
        id_vector_model: str,
        detector: FaceDetector,
        encoder: FaceEncoder,
        preprocessing: Preprocessing,
        detection_size: int | None = None,
    ) -> None:
        self.id_vector_model = id_vector_model
        self.preprocessing = preprocessing
        self._detector = detector
        self._encoder = encoder
        self._detection_size = detection_size

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> FaceStage:
        """The stage from a face engine folder that id3pm build-faces built.

        Args:
            folder: For example triton_repo/face_embedding/1/engine.
            threads: See `id3pm.face.runtime.open_session`.

        Raises:
            EngineMissingError: Nothing has been built there.
            EngineError: A file is damaged or does not fit.
        """
        manifest = read_manifest(folder)
        detector, encoder = load_models(folder, manifest, threads)
        return cls(manifest.id_vector_model, detector, encoder, manifest.preprocessing, manifest.detection_size)

    @property
    def identity_dim(self) -> int:
        """Length D of the ID vectors."""
        return self._encoder.identity_dim

    def embed(self, photo: bytes, policy: FacePolicy = "largest", alive: Callable[[], object] = _no_op) -> FaceResult:
        """The face in one photo.

        Args:
            photo: Content of a JPEG, PNG or WebP file; see `id3pm.formats.photo_decoding.decode_photo`.
            policy: Which of several faces to take: `largest` by box area, or `only`: refuse to choose.
            alive: Called while the photo is decoded, and before each attempt at finding a face and before encoding it.

        Raises:
            ImageError: The photo cannot be decoded.
            NoFaceError: No face was found at any of the scales tried.
            FaceTooSmallError: The face is smaller than `MIN_FACE_SIZE`.
            SeveralFacesError: Several faces, and the policy is `only`.
            InvalidInputError: The policy is unknown.
        """
        check_policy(policy)
        view, tilt = self._upright(decode_photo(photo, alive=alive), alive)
        face = choose(view.faces, policy, view.size, self._detection_attempts(*view.size))
        if isinstance(face, FaceError):
            raise face
        if abs(tilt) <= self._detector.upright_rule.tilt:
            alive()
            vector = self.encode([view.image], [face])[0]
            return self._result(view, vector, face, 0.0)
        patch, matrix = turned_crop(view.image, face, tilt, PATCH, PATCH_FACES)
        straight = self._middle_face(patch, alive)
        alive()
        vector = self.encode([patch], [straight])[0]
        return self._result(view, vector, crop_back(straight, matrix), tilt)

    def embed_images(
        self, images: NDArray[np.uint8], policy: FacePolicy = "largest", alive: Callable[[], object] = _no_op
    ) -> list[FaceResult | FaceError]:
        """The faces in a batch of upright pictures; an error in one does not stop the others.

        Generated images are upright: unlike `embed`, this looks for no turn.

        Args:
            images: uint8 [N, H, W, 3], RGB.
            policy: See `embed`.
            alive: See `embed`.

        Returns:
            For every picture its result, or the error that `embed` would have raised.
        """
        check_policy(policy)
        found = self.detect(images, alive)
        height, width = images.shape[1:3]
        tried = self._detection_attempts(height, width)
        picks = [choose(faces, policy, (height, width), tried) for faces in found]
        usable = {i: pick for i, pick in enumerate(picks) if not isinstance(pick, FaceError)}
        alive()
        vectors = self.encode([images[i] for i in usable], list(usable.values()))
        embeddings = dict(zip(usable, vectors, strict=True))
        return [
            pick if isinstance(pick, FaceError) else FaceResult(embeddings[i], pick, len(found[i]))
            for i, pick in enumerate(picks)
        ]

    def encode(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """ID vectors of faces that were detected.

        Args:
            images: N pictures, uint8 [H, W, 3], RGB.
            detections: Of each, float32 [15] in its pixels; see `id3pm.face.detect.DETECTION_SIZE`.

        Returns:
            float32 [N, D]; see `FaceResult.embedding`.
        """
        crops = [self.preprocessing.crop(image, face) for image, face in zip(images, detections, strict=True)]
        batches = [self._encoder.encode_batch(np.stack(crops[i : i + BATCH])) for i in range(0, len(crops), BATCH)]
        return np.concatenate([np.empty((0, self.identity_dim), np.float32), *batches])

    def detect(self, images: NDArray[np.uint8], alive: Callable[[], object] = _no_op) -> list[NDArray[np.float32]]:
        """All faces in a batch of decoded pictures.

        Args:
            images: uint8 [N, H, W, 3], RGB.
            alive: Called before each attempt.

        Returns:
            N arrays float32 [K, 15] in pixels of the pictures, highest score first; K is 0 where no attempt of
            `id3pm.face.detection_attempts` found a face.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InvalidInputError(f"images are {images.dtype} {images.shape}: need uint8 [N, H, W, 3]")
        faces = [np.empty((0, DETECTION_SIZE), dtype=np.float32)] * len(images)
        height, width = images.shape[1:3]
        for attempt in self._detection_attempts(height, width):
            missing = [i for i, found in enumerate(faces) if not len(found)]
            for start in range(0, len(missing), BATCH):
                chunk = missing[start : start + BATCH]
                alive()
                scenes = np.stack([attempt.frame(images[i]) for i in chunk])
                for i, found in zip(chunk, self._detector.detect_batch(scenes), strict=True):
                    faces[i] = attempt.to_photo(found, (height, width))
        return faces

    def _upright(self, photo: NDArray[np.uint8], alive: Callable[[], object]) -> tuple[_View, float]:
        """The quarter turn in which the face is upright, and by how many degrees it is tilted there.

        Raises:
            NoFaceError: There is a face, but it is not clear which way up it is.
        """
        rule, peaks, views = self._detector.upright_rule, [], []
        for quarter in QUARTERS:
            image = np.ascontiguousarray(np.rot90(photo, quarter // 90))
            (faces,) = self.detect(image[None], alive)
            view = _View(image, quarter, faces)
            if view.face is None:
                peak = Peak(0.0, 0.0)
            elif not quarter and is_upright(self._detector, image, view.face, rule):
                return view, 0.0
            else:
                alive()
                peak = find_peak(self._detector, image, view.face)
            views.append(view)
            peaks.append((quarter, peak))
        found = one_way_up(peaks, rule)
        if found is not None:
            return views[QUARTERS.index(found[0])], found[1].angle
        if any(view.face is not None for view in views):
            raise NoFaceError(
                f"a face was found in the {photo.shape[1]}x{photo.shape[0]} photo, but which way up it is could not be "
                "told: turn the photo until the face is upright, and send one in which the face looks towards the "
                "camera and is well lit"
            )
        return views[0], 0.0

    def _middle_face(self, patch: NDArray[np.uint8], alive: Callable[[], object]) -> NDArray[np.float32]:
        """The face in the middle of a turned picture."""
        (faces,) = self.detect(patch[None], alive)
        from_middle = np.hypot(*(faces[:, :2] + faces[:, 2:4] / 2 - PATCH / 2).T)
        if not (from_middle < PATCH / 5).any():
            raise NoFaceError(
                "a tilted face was found in the photo, and is lost when it is straightened: turn the photo until the "
                "face is upright"
            )
        face: NDArray[np.float32] = faces[from_middle.argmin()]
        return face

    @staticmethod
    def _result(view: _View, vector: NDArray[np.float32], face: NDArray[np.float32], tilt: float) -> FaceResult:
        """The result for a face [15] in a turned photo, in pixels of the photo as it was stored."""
        size = view.size[::-1] if view.quarter % 180 else view.size
        turned = 180 - round(180 - view.quarter - tilt) % 360
        return FaceResult(vector, quarter_back(face, view.quarter, size), len(view.faces), turned)

    def _detection_attempts(self, height: int, width: int) -> tuple[Attempt, ...]:
        return detection_attempts(max(height, width), self._detector.at_own_size, self._detection_size)
