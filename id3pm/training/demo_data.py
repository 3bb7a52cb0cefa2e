"""The embedded training set: generated faces that a detector accepts, with the ID vectors of a real FR model.

Candidate number i is a function of (seed, i): its latent is Philox(seed, i). Shard k holds what the filter keeps of
candidates k * shard_size .. (k + 1) * shard_size - 1, so shards can be made in any order, by any number of processes,
and again after an interruption, with the same result.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from id3pm.config import to_json
from id3pm.face.manifest import read_manifest
from id3pm.formats import datasets as shards
from id3pm.training.embedding import Embedder, FaceFilter
from id3pm.training.gan import FaceGenerator

DEMO_FILTER = FaceFilter(min_score=0.85, max_turn=0.25, min_eye_distance=0.2)
"""Clear, roughly frontal faces: the generator's half profiles and failures cost capacity that a small network lacks."""
CHUNK = 100  # candidates in memory at a time


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
        """What dataset.json says."""
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
    """Makes shards until at least `count` faces lie in the folder; what is there already is kept.

    Args:
        job: What to make.
        count: Least number of faces, train and test together.
        workers: Processes; each uses one core.

    Returns:
        Number of faces in the folder's shards 0 .. last.

    Raises:
        InvalidInputError: The folder holds another data set.
        EngineError: The face models are missing.
    """
    shards.begin(job.folder, job.description())
    done = 0
    with (
        tqdm(total=count, unit="face", smoothing=0.05) as bar,
        ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        numbers = _numbers()
        pending: dict[Future[int], int] = {}
        # Shards are asked for one at a time: how many are needed shows only as the filter's yield does.
        while done < count or pending:
            while done < count and len(pending) < workers:
                number = next(numbers)
                existing = shards.shard_size(job.folder, number)
                if existing is None:
                    pending[pool.submit(make_shard, job, number)] = number
                else:
                    done += existing
                    bar.update(existing)
            for future in wait(pending, return_when=FIRST_COMPLETED).done if pending else ():
                del pending[future]
                done += future.result()
                bar.update(future.result())
    return done


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def make_shard(job: DemoJob, number: int) -> int:
    """Makes one shard on one core; returns how many faces it holds."""
    torch.set_num_threads(1)  # this process is one of several
    generator, embedder = FaceGenerator(), Embedder(job.faces, threads=1)
    images, parts, index = [], [], []
    wanted = np.arange(number * job.shard_size, (number + 1) * job.shard_size)
    wanted = wanted[shards.is_test(wanted)] if job.held_out_only else wanted
    for start in range(0, len(wanted), CHUNK):
        candidates = wanted[start : start + CHUNK]
        pixels = generator.sample(job.seed, candidates.tolist())
        found = embedder.embed(pixels, job.face_filter)
        images.append(pixels[found.rows])
        index.append(candidates[found.rows])
        parts.append(found)
    shards.write_shard(
        job.folder,
        number,
        {
            "images": np.concatenate(images),
            "vectors": np.concatenate([part.vectors for part in parts]),
            "flipped_vectors": np.concatenate([part.flipped_vectors for part in parts]),
            "detections": np.concatenate([part.detections for part in parts]),
            "index": np.concatenate(index),
        },
    )
    return sum(map(len, index))
