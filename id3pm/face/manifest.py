"""manifest.json of a face engine folder: detector, encoder and preprocessing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from id3pm.config import from_json, require, to_json
from id3pm.errors import ConfigError, EngineError, EngineMissingError
from id3pm.face.preprocessing import Preprocessing
from id3pm.formats.hashing import file_sha256

FILE_NAME = "manifest.json"
_ONLY_IN_VERSION_1 = ("detector_file", "detector_sha256", "input_mean", "input_std")
HOW_TO_BUILD = "build the face models with id3pm build-faces"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedThreshold:
    """Threshold of similarity from which the FR model's authors take two pictures for one person.

    Attributes:
        cosine: Cosine of the two ID vectors, -1 .. 1.
        source: Publication, and the data it was measured on.
    """

    cosine: float
    source: str

    def __post_init__(self) -> None:
        require(-1.0 < self.cosine < 1.0, f"cosine={self.cosine}: must be between -1 and 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceManifest:
    """What a face engine folder contains.

    Attributes:
        id_vector_model: Name of the FR model, as bundles name it: `sface`, `insightface:buffalo_l`, `facenet:FILE`.
        identity_dim: Length D of its ID vectors.
        detector: Kind of the detector, a key of `id3pm.face.encoders.DETECTORS`.
        detector_files: Its ONNX files in the folder, in the order in which the detector takes them, with their SHA-256.
        detection_size: Side in pixels of the square that photographs are fitted into for the detector, as insightface
            does it; see `id3pm.face.detection_attempts.Square`. `None` leaves the size to the detector's kind.
        encoder_file: The ONNX file of the encoder: crops in, ID vectors out.
        encoder_sha256: Hash of that file.
        preprocessing: Preparation of the encoder's input, and normalisation of its output.
        published_threshold: The FR model's own threshold, where its authors published one.
        source: Where the models come from, with versions.
        source_sha256: Hash over the source files; if it is unchanged, no rebuild is needed.
        licence: Licence of the weights.
        recipe: Version of the export or clean-up that was applied; 0 for files taken as they are.
        deviations: Differences from the published method, a sentence each.
        schema_version: Version of this file's form.
    """

    id_vector_model: str
    identity_dim: int
    detector: str
    detector_files: dict[str, str]
    encoder_file: str
    encoder_sha256: str
    preprocessing: Preprocessing
    source: str
    source_sha256: str
    licence: str
    recipe: int
    deviations: tuple[str, ...] = ()
    detection_size: int | None = None
    published_threshold: PublishedThreshold | None = None
    schema_version: int = 2

    def __post_init__(self) -> None:
        if self.schema_version != 2:
            raise ConfigError(f"schema_version={self.schema_version}: this version reads 1 and 2; {HOW_TO_BUILD}")
        size = self.detection_size
        require(
            size is None or (size % 32 == 0 and 32 <= size <= 2048),
            f"detection_size={size}: must be null or a multiple of 32 up to 2048",
        )

    @property
    def models_key(self) -> str:
        """What the ID vectors of pictures depend on: the hashes of detector and encoder."""
        return f"{' '.join(self.detector_files.values())} {self.encoder_sha256}"


def write_manifest(folder: Path, manifest: FaceManifest) -> None:
    """Write manifest.json into `folder`."""
    (folder / FILE_NAME).write_text(json.dumps(to_json(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> FaceManifest:
    """The manifest of a face engine folder; the files it names exist and have the hashes it gives.

    Raises:
        EngineMissingError: There is no manifest, or a file it names is missing.
        EngineError: The manifest cannot be read, or a file is not the one it describes.
    """
    try:
        data: Any = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineMissingError(f"no face models have been built in {folder}: {HOW_TO_BUILD}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EngineError(f"the face models' {FILE_NAME} is not JSON ({error}): {HOW_TO_BUILD}") from error
    if not isinstance(data, Mapping):
        raise EngineError(f"the face models' {FILE_NAME} is not a JSON object: {HOW_TO_BUILD}")
    try:
        manifest = from_json(FaceManifest, _from_version_1(data) if data.get("schema_version") == 1 else data)
    except ConfigError as error:
        raise EngineError(f"the face models' {FILE_NAME} is not valid: {error}; {HOW_TO_BUILD}") from error
    for name, sha256 in [*manifest.detector_files.items(), (manifest.encoder_file, manifest.encoder_sha256)]:
        if not (folder / name).is_file():
            raise EngineMissingError(f"the face models lack {name}: {HOW_TO_BUILD}")
        if file_sha256(folder / name) != sha256:
            raise EngineError(f"{name} is not the file its manifest describes: {HOW_TO_BUILD}")
    return manifest


def takes_unit_vectors(said: bool | None, id_vector_model: str, folder: Path) -> bool:
    """Whether a network takes only ID vectors of L2 norm 1: trained on these alone, it makes strangers from others.

    Args:
        said: The bundle's `l2_normalised`, or `None`.
        id_vector_model: The FR model of the vectors that it takes.
        folder: The face engine folder beside it; the norm of its vectors decides if the bundle has no value.

    Raises:
        EngineError: The face models are damaged.
    """
    if said is not None:
        return said
    try:
        manifest = read_manifest(folder)
    except EngineMissingError:
        return False
    return manifest.id_vector_model == id_vector_model and manifest.preprocessing.l2_normalise


def _from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a manifest of schema 1 (one detector file; RGB crops of 112x112 for all) to the present schema."""
    old = dict(data)
    if missing := [name for name in _ONLY_IN_VERSION_1 if not isinstance(old.get(name), (str, int, float))]:
        raise ConfigError(f"FaceManifest of schema_version 1 needs {', '.join(missing)}")
    return {
        "detector_files": {old.pop("detector_file"): old.pop("detector_sha256")},
        "preprocessing": {"mean": old.pop("input_mean"), "std": old.pop("input_std")},
        **old,
        "schema_version": 2,
    }
