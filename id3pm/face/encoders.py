"""Face-recognition models: aligned crop -> ID vector; and the registry that opens a face engine folder.

An FR method is an encoder and the detector that it was trained with, because the detector's landmarks define the
alignment. `FaceManifest` names the pair. A new method is a new manifest; a detector of a new
kind needs one line in `DETECTORS` as well.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineError
from id3pm.face.detect import FaceDetector, YuNet
from id3pm.face.manifest import FaceManifest
from id3pm.face.mtcnn import Mtcnn
from id3pm.face.preprocessing import Preprocessing
from id3pm.face.runtime import open_session
from id3pm.face.scrfd import Scrfd

DETECTORS: Mapping[str, tuple[int, Callable[..., FaceDetector]]] = types.MappingProxyType(
    {"yunet": (1, YuNet), "scrfd": (1, Scrfd), "mtcnn": (3, Mtcnn)}
)
"""Number of ONNX files of each kind, and what opens them: `(*files, threads=...)`."""


class FaceEncoder(Protocol):
    """A black-box FR model: aligned faces in, ID vectors out."""

    identity_dim: int

    def encode_batch(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """ID vectors of aligned faces.

        Args:
            crops: uint8 [N, H, W, 3], RGB, from `id3pm.face.preprocessing.Preprocessing.crop`.

        Returns:
            float32 [N, identity_dim]; rows have L2 norm 1 unless the pre-processing says `l2_normalise: false`.
        """
        ...


class OnnxEncoder:
    """An FR network as an ONNX graph with one image input and one vector output (SFace, ArcFace and similar ones).

    Args:
        model: The ONNX file; input [N, 3, H, W] or [1, 3, H, W].
        preprocessing: Preparation of its input, and normalisation of its output.
        threads: See `id3pm.face.runtime.open_session`.

    Raises:
        EngineError: The graph takes other pictures, or gives no vector of fixed length.
    """

    def __init__(self, model: Path, preprocessing: Preprocessing, threads: int | None = None) -> None:
        self._session = open_session(model, threads)
        self._preprocessing = preprocessing
        inputs = [(item.name, item.shape) for item in self._session.get_inputs()]
        self._input, (rows, *sides) = inputs[0]
        wanted = [3, *preprocessing.input_size]
        fits = [side if isinstance(side, int) else want for side, want in zip(sides, wanted, strict=False)] == wanted
        if len(inputs) != 1 or not fits or (isinstance(rows, int) and rows != 1):
            raise EngineError(f"{model.name} has the inputs {inputs}: an FR model takes one, [N, {str(wanted)[1:]}")
        self._one_by_one = rows == 1
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise EngineError(f"{model.name} has output shape {shape}: an FR model gives [N, D] with a fixed D")
        self.identity_dim: int = shape[1]

    def encode_batch(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `FaceEncoder.encode_batch`."""
        pixels = self._preprocessing.network_input(crops)
        vectors = self._run(pixels)
        if self._preprocessing.flip_average:
            vectors = (vectors + self._run(np.ascontiguousarray(pixels[..., ::-1]))) / 2
        units = unit(vectors)  # also without normalisation: a zero vector is an error
        return units if self._preprocessing.l2_normalise else vectors

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [pixels[row : row + 1] for row in range(len(pixels))] if self._one_by_one else [pixels]
        answers = [self._session.run(None, {self._input: part})[0] for part in parts]
        return np.concatenate([np.empty((0, self.identity_dim), np.float32), *answers], dtype=np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of [N, D] scaled to L2 norm 1.

    Raises:
        EngineError: A row is zero or not finite: the FR model is broken.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norms)) or np.any(norms == 0.0):
        raise EngineError("the FR model gave a vector that is zero or not finite; rebuild the face models")
    return np.asarray(vectors / norms, dtype=np.float32)


def load_models(folder: Path, manifest: FaceManifest, threads: int | None = None) -> tuple[FaceDetector, FaceEncoder]:
    """Detector and encoder of a face engine folder.

    Args:
        folder: The folder that `manifest` was read from.
        manifest: See `id3pm.face.manifest.read_manifest`.
        threads: See `id3pm.face.runtime.open_session`.

    Raises:
        EngineError: The detector's kind is unknown, or a model does not fit its description.
    """
    if manifest.detector not in DETECTORS:
        raise EngineError(f"face detector {manifest.detector!r} is unknown; known are {', '.join(sorted(DETECTORS))}")
    count, open_detector = DETECTORS[manifest.detector]
    files = [folder / name for name in manifest.detector_files]
    if len(files) != count:
        raise EngineError(f"face detector {manifest.detector} has {count} files, its manifest names {len(files)}")
    detector = open_detector(*files, threads=threads)
    encoder = OnnxEncoder(folder / manifest.encoder_file, manifest.preprocessing, threads)
    if encoder.identity_dim != manifest.identity_dim:
        raise EngineError(
            f"{manifest.encoder_file} gives {encoder.identity_dim} numbers, its manifest says {manifest.identity_dim}"
        )
    return detector, encoder
