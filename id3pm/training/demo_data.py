"""The embedded training set: generated faces that a detector accepts, with the ID vectors of a real FR model.

Candidate number i is a function of (seed, i): its latent is Philox(seed, i). Shard k holds the faces that the filter
keeps of candidates k * shard_size .. (k + 1) * shard_size - 1, so shards can be made in any order, by any number of
processes, and again after an interruption, with the same result. The last shard of a set is cut to the number of faces
asked for.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from id3pm.config import to_json
from id3pm.face.manifest import read_manifest
from id3pm.formats import datasets as shards
from id3pm.training.embedding import Embedded, Embedder, FaceFilter
from id3pm.training.gan import FaceGenerator

DEMO_FILTER = FaceFilter(min_score=0.85, max_turn=0.25, min_eye_distance=0.2)
"""Clear, roughly frontal faces: the generator's half profiles and failures cost capacity that a small network lacks."""
CHUNK = 100  # candidates that a process works on at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoJob:
    """One demo data set.

    Attributes:
        folder: Where the shards go.
        faces: Face engine folder (id3pm build-faces).
        seed: Which faces.
        shard_size: Candidates per shard.
        face_filter: Which of them are kept.
        held_out_only: Make the held-out people alone, for runs that are trained on a stream.
    """

    folder: Path
    faces: Path
    seed: int = 0
    shard_size: int = 1000
    face_filter: FaceFilter = DEMO_FILTER
    held_out_only: bool = False

    def description(self) -> dict[str, Any]:
        """The content of dataset.json."""
        manifest = read_manifest(self.faces)
        return {
            "kind": "demo",
            "source": "gan_face_generate 1.1.1 (MIT): DCGAN trained on the synthetic DigiFace-1M",
            "generator_sha256": FaceGenerator().weights_sha256,
            "id_vector_model": manifest.id_vector_model,
            "identity_dim": manifest.identity_dim,
            "face_models_sha256": manifest.source_sha256,
            "image_size": 64,
            "seed": self.seed,
            "shard_size": self.shard_size,
            "filter": to_json(self.face_filter),
            "test_every": shards.TEST_EVERY,
            **({"held_out_only": True} if self.held_out_only else {}),
        }


def make_demo_dataset(job: DemoJob, count: int, workers: int = 1) -> int:
    """Adds faces until the folder has `count`; existing ones are kept.

    The last shard is cut where the count is reached, and made whole when the set grows.

    Args:
        job: What to make.
        count: Number of faces, train and test together.
        workers: Processes; each uses one core.

    Returns:
        Number of faces in the folder: `count`, or more where there were more before.

    Raises:
        InvalidInputError: The folder holds another data set.
        EngineError: The face models are missing.
    """
    shards.begin(job.folder, job.description())
    sizes = shards.shard_sizes(job.folder)
    there = sum(size for size, _ in sizes.values())
    if there >= count:
        return there
    whole = {number for number, (_, complete) in sizes.items() if complete}
    done = sum(sizes[number][0] for number in whole)
    with (
        tqdm(total=count, initial=done, unit="face", smoothing=0.05) as bar,
        ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        parts: list[_Chunk] = []
        for number, last, chunk in _in_order(pool, job, _chunks(job, whole), 2 * workers):
            kept = chunk.first(count - done)
            parts.append(kept)
            done += len(kept.index)
            bar.update(len(kept.index))
            if last or done == count:
                _write(job, number, parts, complete=last and len(kept.index) == len(chunk.index))
                parts = []
            if done == count:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return done


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunk:
    """Faces that the filter kept of some candidates, with their numbers, int64 [K]."""

    images: NDArray[np.uint8]
    index: NDArray[np.int64]
    found: Embedded

    def first(self, count: int) -> _Chunk:
        """The first faces of it, at most `count`."""
        found = Embedded(*(getattr(self.found, field.name)[:count] for field in dataclasses.fields(Embedded)))
        return _Chunk(self.images[:count], self.index[:count], found)


def _chunks(job: DemoJob, whole: set[int]) -> Iterator[tuple[int, bool, NDArray[np.int64]]]:
    """(shard, whether these are its last, candidates) of all shards that are not whole, in order, without end."""
    for number in itertools.count():
        if number in whole:
            continue
        wanted = np.arange(number * job.shard_size, (number + 1) * job.shard_size, dtype=np.int64)
        wanted = wanted[shards.is_test(wanted)] if job.held_out_only else wanted
        for start in range(0, len(wanted), CHUNK):
            yield number, start + CHUNK >= len(wanted), wanted[start : start + CHUNK]


def _in_order(
    pool: Executor, job: DemoJob, chunks: Iterator[tuple[int, bool, NDArray[np.int64]]], ahead: int
) -> Iterator[tuple[int, bool, _Chunk]]:
    """Results of chunks, in their order; `ahead` of them are worked on at a time."""
    pending: collections.deque[tuple[int, bool, Future[_Chunk]]] = collections.deque()
    for number, last, candidates in chunks:
        pending.append((number, last, pool.submit(make_chunk, job, candidates)))
        if len(pending) == ahead:
            first, first_last, future = pending.popleft()
            yield first, first_last, future.result()


def make_chunk(job: DemoJob, candidates: NDArray[np.int64]) -> _Chunk:
    """The faces that the filter keeps of some candidates; on one core."""
    torch.set_num_threads(1)  # this process is one of several
    generator, embedder = _tools(job.faces)
    pixels = generator.sample(job.seed, candidates.tolist())
    found = embedder.embed(pixels, job.face_filter)
    return _Chunk(pixels[found.rows], candidates[found.rows], found)


@functools.lru_cache(maxsize=1)
def _tools(faces: Path) -> tuple[FaceGenerator, Embedder]:
    """The networks of a process, for every chunk."""
    return FaceGenerator(), Embedder(faces, threads=1)


def _write(job: DemoJob, number: int, parts: Sequence[_Chunk], *, complete: bool) -> None:
    # Measurements of a shard that was cut are of fewer faces.
    shards.measured_path(job.folder, shards.shard_path(job.folder, number)).unlink(missing_ok=True)
    shards.write_shard(
        job.folder,
        number,
        {
            "images": np.concatenate([part.images for part in parts]),
            "vectors": np.concatenate([part.found.vectors for part in parts]),
            "flipped_vectors": np.concatenate([part.found.flipped_vectors for part in parts]),
            "detections": np.concatenate([part.found.detections for part in parts]),
            "index": np.concatenate([part.index for part in parts]),
            "complete": np.array(complete),
        },
    )
