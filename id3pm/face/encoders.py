"""Face-recognition models: aligned crop -> ID vector; and the registry that opens a face engine folder.

An FR method is a detector (whose landmarks define the alignment it was trained with) and an encoder; `FaceManifest`
names the pair. A new method is a new manifest, and where its detector is of a new kind, one line in `DETECTORS`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineError
from id3pm.face.align import CROP_SIZE
from id3pm.face.detect import FaceDetector, YuNet
from id3pm.face.manifest import FaceManifest
from id3pm.face.runtime import open_session
from id3pm.face.scrfd import Scrfd

DETECTORS: Mapping[str, Callable[[Path, int | None], FaceDetector]] = types.MappingProxyType(
    {"yunet": YuNet, "scrfd": Scrfd}
)


class FaceEncoder(Protocol):
    """A black-box FR model: aligned faces in, ID vectors out."""

    identity_dim: int

    def encode_batch(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """ID vectors of aligned faces.

        Args:
            crops: uint8 [N, 112, 112, 3], RGB, from `id3pm.face.align.align_face`.

        Returns:
            float32 [N, identity_dim]; every row has L2 norm 1. FR models are trained on the angle alone, so the norm
            carries no identity, and every ID vector in this package is a unit vector.
        """
        ...


class OnnxEncoder:
    """An FR network as an ONNX graph with one image input and one vector output (SFace, ArcFace and their kin).

    Args:
        model: The ONNX file; input [N, 3, 112, 112], RGB.
        threads: See `id3pm.face.runtime.open_session`.
        mean: Subtracted from the pixels, 0..255.
        std: The pixels are then divided by this. SFace has both inside its graph: 0 and 1 here.
    """

    def __init__(self, model: Path, threads: int | None = None, mean: float = 0.0, std: float = 1.0) -> None:
        self._session = open_session(model, threads)
        self._input = self._session.get_inputs()[0].name
        self._mean, self._std = np.float32(mean), np.float32(std)
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise EngineError(f"{model.name} has output shape {shape}: an FR model gives [N, D] with a fixed D")
        self.identity_dim: int = shape[1]

    def encode_batch(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `FaceEncoder.encode_batch`."""
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_SIZE, CROP_SIZE, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}: need uint8 [N, {CROP_SIZE}, {CROP_SIZE}, 3]")
        pixels = (crops.transpose(0, 3, 1, 2).astype(np.float32) - self._mean) / self._std
        vectors = self._session.run(None, {self._input: np.ascontiguousarray(pixels)})[0]
        return unit(vectors)


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
    detector = DETECTORS[manifest.detector](folder / manifest.detector_file, threads)
    encoder = OnnxEncoder(folder / manifest.encoder_file, threads, manifest.input_mean, manifest.input_std)
    if encoder.identity_dim != manifest.identity_dim:
        raise EngineError(
            f"{manifest.encoder_file} gives {encoder.identity_dim} numbers, its manifest says {manifest.identity_dim}"
        )
    return detector, encoder
