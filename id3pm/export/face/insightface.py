"""insightface model packs for the face engine folder, unchanged: `--model insightface:PATH`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from id3pm.errors import EngineError, EngineMissingError
from id3pm.export.face.export import import_onnx
from id3pm.export.face.foreign import copy_network, outside_files
from id3pm.export.face.source import FaceSource
from id3pm.face.manifest import FaceManifest
from id3pm.face.preprocessing import Preprocessing
from id3pm.formats.hashing import file_sha256

INSIGHTFACE = "insightface:"
RECIPE = 1
"""Version of the manifests; the files are not changed."""
DETECTION_SIZE = 640
"""Side in pixels of the detector's input: the default of insightface's `FaceAnalysis.prepare` up to version 1.0."""
PREPROCESSING = Preprocessing(mean=127.5, std=127.5, antialias=False)
DEVIATIONS = (
    "detection: at 640x640 alone, as insightface up to 1.0; later ones, without a det_size, look at 128x128 too and "
    "keep the best of both",
    "detection: a photograph in which no face is found so is looked at again at 128x128, and inside a border; "
    "insightface 1.0 gives up",
    "detection: boxes overlap by their areas alone; insightface adds a pixel to their sides",
)


def pack_source(pack: Path) -> FaceSource:
    """What `--model insightface:PATH` names.

    Raises:
        EngineMissingError: There is no such folder, or it lacks a model.
        EngineError: A file is damaged, or there is more than one detector or recogniser.
    """
    files = _pack_files(pack)
    outside = [part for file in files for part in outside_files(file)]
    return FaceSource(
        id_vector_model=vectors_of(pack),
        recipe=RECIPE,
        sha256=hashlib.sha256("".join(map(file_sha256, (*files, *outside))).encode()).hexdigest(),
        build=functools.partial(_build, files),
    )


def vectors_of(pack: Path) -> str:
    """What bundles call the ID vectors: `insightface:buffalo_l`."""
    return INSIGHTFACE + pack.name


def _pack_files(pack: Path) -> tuple[Path, Path]:
    """Detector and recogniser of an insightface model pack, distinguished by their inputs and outputs."""
    if not pack.is_dir():
        raise EngineMissingError(
            f"there is no folder {pack}: download the model pack {pack.name} from insightface's releases and unpack it "
            f"there, or name the folder where it is ({INSIGHTFACE}PATH)"
        )
    found: dict[str, list[Path]] = {"detector": [], "recogniser": []}
    for file in sorted(pack.glob("*.onnx")):
        graph = _load(file)
        if len(graph.output) == 9:
            found["detector"].append(file)
        elif _dims(graph.input[0])[2:] == [112, 112] and len(graph.output) == 1:
            found["recogniser"].append(file)
    if missing := [kind for kind, files in found.items() if not files]:
        names = ", ".join(file.name for file in sorted(pack.iterdir())) or "nothing"
        raise EngineMissingError(
            f"{pack.name} has no {' and no '.join(missing)} (it has {names}): a pack needs an SCRFD detector with "
            "landmarks, such as det_10g.onnx, and a recogniser for 112x112 crops, such as w600k_r50.onnx"
        )
    for kind, files in found.items():
        if len(files) > 1:
            raise EngineError(
                f"{pack.name} has {len(files)} {kind}s ({', '.join(file.name for file in files)}), and ID vectors are "
                "those of one: leave that one in the folder, or name a folder that has it alone"
            )
    return found["detector"][0], found["recogniser"][0]


def _load(file: Path) -> Any:
    """The graph of an ONNX file from elsewhere, without its weights where they lie outside."""
    onnx = import_onnx()
    try:
        return onnx.load(file, load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError, whose module depends on protobuf's implementation
        raise EngineError(f"{file.name} is not a readable ONNX file: {error}") from error


def _build(files: Sequence[Path], folder: Path, source_sha256: str) -> FaceManifest:
    for file in files:
        copy_network(file, folder / file.name)
    encoder = _load(files[1])
    # As insightface decides: old exports from MXNet begin with (x - 127.5) / 128 inside the graph, others need it done
    # before.
    normalises = {"Sub", "Mul"} <= {node.op_type for node in encoder.node[:8]}
    return FaceManifest(
        id_vector_model=vectors_of(files[0].parent),
        identity_dim=_dims(encoder.output[0])[1],
        detector="scrfd",
        detector_files={files[0].name: file_sha256(folder / files[0].name)},
        encoder_file=files[1].name,
        encoder_sha256=file_sha256(folder / files[1].name),
        preprocessing=dataclasses.replace(PREPROCESSING, mean=0.0, std=1.0) if normalises else PREPROCESSING,
        source=f"insightface model pack {files[0].parent.name}",
        source_sha256=source_sha256,
        licence="as the pack's: insightface's own packs are for non-commercial research only",
        recipe=RECIPE,
        deviations=DEVIATIONS,
        detection_size=DETECTION_SIZE,
    )


def _dims(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
