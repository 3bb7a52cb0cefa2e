"""A training set from a folder of pictures: aligned crops and the ID vectors of any FR model of the face room."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from id3pm import shards
from id3pm.config import to_json
from id3pm.errors import Id3pmError, ImageError, InvalidInputError, MissingExtraError
from id3pm.face.align import similarity_transform
from id3pm.images import decode_photo
from id3pm.training.embedding import Embedder, FaceFilter

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SKIPPED_FILE = "skipped.tsv"
LANDMARKS_IN_FRAME = np.array([[0.375, 0.46], [0.625, 0.46], [0.5, 0.60], [0.40, 0.72], [0.60, 0.72]])
"""Where eyes, nose tip and mouth corners lie in a crop, in widths: head and hair in the frame, as in FFHQ's crops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderJob:
    """One data set from a folder.

    Attributes:
        pictures: Searched with its subfolders (FFHQ's `00000/00042.png` layout, or any other), sorted by path.
        folder: Where the shards go.
        faces: Face engine folder (export/face_models.py).
        image_size: Size of the crops in pixels: 64 for the base model, 256 for super-resolution.
        shard_size: Pictures per shard.
        face_filter: Which faces are kept.
    """

    pictures: Path
    folder: Path
    faces: Path
    image_size: int = 64
    shard_size: int = 1000
    face_filter: FaceFilter = FaceFilter()


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """How it went: pictures `kept`, and `skipped` (listed with reasons in skipped.tsv)."""

    kept: int
    skipped: int


def embed_folder(job: FolderJob) -> FolderReport:
    """Makes the shards that are missing; pictures that cannot be used are reported and skipped.

    Picture i of the sorted list has index i, and shard k covers shard_size of them, so an interrupted run goes on
    where it stopped.

    Raises:
        InvalidInputError: There are no pictures, or the output folder holds another data set.
        EngineError: The face models are missing.
    """
    files = sorted(path for path in job.pictures.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidInputError(f"{job.pictures} has no pictures ({', '.join(sorted(SUFFIXES))})")
    embedder = Embedder(job.faces)
    shards.begin(job.folder, _description(job, embedder, len(files)))
    kept = 0
    with tqdm(total=len(files), unit="picture") as bar:
        for number, start in enumerate(range(0, len(files), job.shard_size)):
            chunk = files[start : start + job.shard_size]
            done = shards.shard_size(job.folder, number)
            if done is None:
                done = _make_shard(job, embedder, number, start, chunk)
            kept += done
            bar.update(len(chunk))
    return FolderReport(kept, len(files) - kept)


def _make_shard(job: FolderJob, embedder: Embedder, number: int, start: int, files: list[Path]) -> int:
    columns: dict[str, list[Any]] = {name: [] for name in shards.ARRAYS}
    skipped: list[str] = []
    for index, file in enumerate(files, start):
        try:
            row = _row(job, embedder, file)
        except ImageError as error:
            row = error
        if isinstance(row, Id3pmError):
            skipped.append(f"{index}\t{file.relative_to(job.pictures)}\t{row}\n")
            continue
        for name, value in {**row, "index": np.int64(index)}.items():
            columns[name].append(value)
    empty = _empty_columns(job, embedder)
    shards.write_shard(
        job.folder, number, {name: np.stack(rows) if rows else empty[name] for name, rows in columns.items()}
    )
    with (job.folder / SKIPPED_FILE).open("a", encoding="utf-8") as report:
        report.writelines(skipped)
    return len(columns["index"])


def _row(job: FolderJob, embedder: Embedder, file: Path) -> dict[str, Any] | InvalidInputError:
    """The arrays of one picture, or why it is not used."""
    photo = decode_photo(file.read_bytes())
    found = embedder.embed(photo[None], job.face_filter)
    if not len(found.rows):
        return InvalidInputError("no face that passes the filter")
    detection = found.detections[0]
    return {
        "images": framed_face(photo, detection[4:14].reshape(5, 2), job.image_size),
        "vectors": found.vectors[0],
        "flipped_vectors": found.flipped_vectors[0],
        "detections": detection,
    }


def framed_face(photo: NDArray[np.uint8], landmarks: NDArray[np.floating[Any]], size: int) -> NDArray[np.uint8]:
    """The face with its head, upright, eyes at one place: uint8 [size, size, 3].

    Args:
        photo: uint8 [H, W, 3].
        landmarks: [5, 2], pixels of `photo`.
        size: Side of the result in pixels. What lies outside the photo repeats its border.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("face alignment needs OpenCV: pip install 'id3pm[face]'") from error
    frame: NDArray[np.float64] = LANDMARKS_IN_FRAME * float(size)
    matrix = similarity_transform(landmarks, frame)
    factor = int(1.0 / np.hypot(matrix[0, 0], matrix[1, 0]))
    if factor >= 2:  # average first: sampling a far larger photo at single points would alias
        height, width = photo.shape[0] // factor, photo.shape[1] // factor
        photo = cv2.resize(photo[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
        matrix = similarity_transform((landmarks + 0.5) / factor - 0.5, frame)
    crop: NDArray[np.uint8] = cv2.warpAffine(
        photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop


def _empty_columns(job: FolderJob, embedder: Embedder) -> dict[str, NDArray[Any]]:
    dim = embedder.manifest.identity_dim
    return {
        "images": np.zeros((0, job.image_size, job.image_size, 3), np.uint8),
        "vectors": np.zeros((0, dim), np.float32),
        "flipped_vectors": np.zeros((0, dim), np.float32),
        "detections": np.zeros((0, 15), np.float32),
        "index": np.zeros(0, np.int64),
    }


def _description(job: FolderJob, embedder: Embedder, pictures: int) -> dict[str, Any]:
    return {
        "kind": "folder",
        "source": f"{pictures} pictures",
        "id_vector_model": embedder.manifest.id_vector_model,
        "identity_dim": embedder.manifest.identity_dim,
        "face_models_sha256": embedder.manifest.source_sha256,
        "image_size": job.image_size,
        "shard_size": job.shard_size,
        "filter": to_json(job.face_filter),
        "test_every": shards.TEST_EVERY,
    }
