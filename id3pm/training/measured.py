"""Measures the attributes of a data set on its images: attribute set `landmarks`.

They are stored in files beside the shards, so the shards do not change, and only the new part of a grown set is
measured.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from id3pm.attributes import NULL_VALUE, fields_of, null_vector
from id3pm.errors import InvalidInputError
from id3pm.face.landmarks import FaceMesh, packaged_model
from id3pm.face.measures import RANGES, measure
from id3pm.formats import datasets as shards
from id3pm.formats.hashing import file_sha256

ATTRIBUTE_SET = "landmarks"
MIN_SCORE = 0.5
"""Least confidence of the landmark network; a face below it gets the vector that means "no attributes"."""


def measure_dataset(folder: Path, workers: int = 1) -> tuple[int, int]:
    """Measures the attributes of every shard that has none yet.

    Args:
        folder: The data set's.
        workers: Processes, one core each.

    Returns:
        How many images were measured in this call, and how many of them show no measurable face.

    Raises:
        InvalidInputError: The folder is no data set, or has attributes of another kind.
        MissingExtraError: The landmark network is not installed.
    """
    if (existing := shards.describe(folder)).get("attribute_set") not in (None, ATTRIBUTE_SET):
        raise InvalidInputError(f"{folder} has attributes of set {existing['attribute_set']}: measure another copy")
    shards.begin(folder, _description(), shards.MEASURED_FILE)
    missing = [
        shard for shard in sorted(folder.glob("shard_*.npz")) if not shards.measured_path(folder, shard).exists()
    ]
    measured = unseen = 0
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.map(measure_shard, [folder] * len(missing), missing)
        for faces, without in tqdm(results, total=len(missing), unit="shard"):
            measured, unseen = measured + faces, unseen + without
    return measured, unseen


def measure_shard(folder: Path, shard: Path) -> tuple[int, int]:
    """Measures one shard on one core; returns how many images it has and how many show no measurable face."""
    with np.load(shard) as arrays:
        images, detections, index = arrays["images"], arrays["detections"], arrays["index"]
    attributes = measured_attributes(images, detections, FaceMesh(threads=1))
    shards.write_measured(folder, shard, {"attributes": attributes, "index": index})
    return len(index), int((attributes == NULL_VALUE).all(axis=1).sum())


def measured_attributes(
    images: NDArray[np.uint8], detections: NDArray[np.float32], mesh: FaceMesh
) -> NDArray[np.float32]:
    """Attribute vectors of pictures, float32 [N, A]; values beyond a field's range are taken to its end.

    Args:
        images: uint8 [N, H, W, 3].
        detections: float32 [N, 15], pixels of `images`; see `id3pm.face.detect.DETECTION_SIZE`.
        mesh: The landmark network.
    """
    points, scores = mesh.find(images, detections[:, 4:14].reshape(-1, 5, 2))
    vectors: NDArray[np.float32] = encoded(measure(points))
    vectors[scores < MIN_SCORE] = null_vector(ATTRIBUTE_SET)
    return vectors


def encoded(values: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Measured values, [N] each by name, as attribute vectors float32 [N, A]."""
    columns: Iterable[NDArray[Any]] = (
        (np.clip(values[field.name], field.low, field.high) - field.offset) / field.scale
        for field in fields_of(ATTRIBUTE_SET)
    )
    vectors: NDArray[np.float32] = np.stack(list(columns), axis=1).astype(np.float32)
    return vectors


def _description() -> dict[str, Any]:
    return {
        "attribute_set": ATTRIBUTE_SET,
        "source": "landmarks of MediaPipe Face Mesh (mediapipe 0.10.21, Apache-2.0) and id3pm.face.measures",
        "model_sha256": file_sha256(packaged_model()),
        "expression_ranges": {name: list(limits) for name, limits in RANGES.items()},
        "min_score": MIN_SCORE,
    }
