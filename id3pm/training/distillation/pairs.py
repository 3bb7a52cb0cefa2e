"""The teacher's results on disk, and the batches that a student is trained on.

    pairs_00000.npz    seeds      int64   [n]              seed of each pair's noise
                       results    uint8   [n, S, S, 3]  the teacher's images
                       truth      uint8   [n, S, S, 3]  super-resolution: the true images
                       scales     float32 [n]           guidance scale, where the stage is guided
                       identity   float32 [n, D]        where the stage takes it
                       attributes float32 [n, A]        where the stage takes them
                       low_res    uint8   [n, s, s, 3]  where the stage takes it
                       alignments float32 [n, 2, 3]     where faces are, if the detector finds none, for the identity
                                                        loss; see `id3pm.training.identity_loss.crop_to_image`

Files are made in any order by any number of processes, each whole or not at all, so what exists is not made again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from id3pm.attributes import NULL_VALUE
from id3pm.diffusion.noise import noise
from id3pm.errors import CheckpointError
from id3pm.formats.arrays import read_arrays, write_arrays
from id3pm.formats.images import to_chw, to_uint8
from id3pm.training.batch import Batches
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.teacher import Teacher, stage_number
from id3pm.training.random_streams import rows_of_step, step_rng
from id3pm.training.variation import altered_vectors, jitter

SHARD = 32  # pairs of a file
FIRST_SEED = 2**40
"""Seeds of the pairs are above: no image is requested with them."""
SCALE_STREAM, STEP_STREAM, CROP_STREAM = (
    10,
    11,
    12,
)  # second key word of Philox, see id3pm.training.random_streams
KIND = "distillation pairs"
ROWS_PER_EARLIER = 4  # rows of a batch for each that learns one of the steps before the last
UNSPECIFIED = 0.25  # share of the rows without attributes
CONDITIONS = ("identity", "attributes", "low_res")


@dataclasses.dataclass(frozen=True)
class PairMaker:
    """Makes the files.

    Attributes:
        config: The run.
        folder: Where they lie.
        teacher: Makes the results.
        source: Conditions and true images, `SHARD` of them at a time.
        description: What the pairs depend on; a file of another description is refused.
    """

    config: DistillConfig
    folder: Path
    teacher: Teacher
    source: Batches
    description: dict[str, Any]

    def make(
        self, rank: int, world: int, on_pairs: Callable[[int], object], should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Makes every world-th missing file.

        Args:
            rank: Number of this process.
            world: Number of processes.
            on_pairs: Called with the number of pairs whenever a file is there.
            should_stop: Asked before each file.

        Raises:
            CheckpointError: The folder has the pairs of another run.
        """
        for number in range(rank, files_of(self.config.pairs), world):
            if should_stop():
                return
            file = pairs_file(self.folder, number)
            if file.exists():
                require_same(read_arrays(file, KIND)[0], self.description)
            else:
                write_arrays(file, {"kind": KIND, "schema_version": 1, **self.description}, self._arrays(number))
            on_pairs(SHARD)

    def _arrays(self, number: int) -> dict[str, NDArray[Any]]:
        batch = self.source.at(number)
        rng = step_rng(self.config.seed, SCALE_STREAM, number)
        conditions = {name: value.numpy().copy() for name, value in batch.conditions.items()}
        if "identity" in conditions:
            vectors = conditions["identity"]
            mean = vectors.mean(axis=0, dtype=np.float64)
            conditions["identity"] = altered_vectors(vectors, np.arange(SHARD), mean, self.config.altered_vectors, rng)
        if "attributes" in conditions:
            conditions["attributes"][rng.random(SHARD) < UNSPECIFIED] = NULL_VALUE
        seeds = FIRST_SEED + number * SHARD + np.arange(SHARD)
        guidance = self.config.unet.guidance_range
        scales = None if guidance is None else rng.uniform(*guidance, SHARD).astype(np.float32)
        results = self.teacher.results(seeds.tolist(), scales, conditions)
        arrays: dict[str, NDArray[Any]] = {"seeds": seeds, "results": results, **conditions}
        if "low_res" in arrays:
            arrays |= {"low_res": to_uint8(arrays["low_res"]), "truth": to_uint8(batch.x0.numpy())}
        if scales is not None:
            arrays["scales"] = scales
        if batch.alignments is not None:
            arrays["alignments"] = batch.alignments.numpy()
        return arrays


def pairs_file(folder: Path, number: int) -> Path:
    """File of `SHARD` pairs."""
    return folder / f"pairs_{number:05d}.npz"


def files_of(pairs: int) -> int:
    """Files that hold so many pairs."""
    return -(-pairs // SHARD)


def require_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses pairs that were made otherwise.

    Raises:
        CheckpointError: The message names what differs.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise CheckpointError(
                f"the pairs in this folder were made with {name}={found.get(name)!r}, this run has {value!r}: "
                "use another folder"
            )


@dataclasses.dataclass(frozen=True)
class PairBatch:
    """One optimiser step's input, on the CPU.

    Attributes:
        noises: Draws 0 .. K - 1 of each pair's seed, float32 [K, N, 3, S, S].
        results: The teacher's images in [-1, 1], float32 [N, 3, S, S].
        places: Which step is learned, int64 [N], 0 for the noisiest.
        own: Whether a later step goes on from the student's own image, instead of the teacher's, bool [N].
        conditions: Keyword arguments of the U-Net.
        truth: The true images in [-1, 1], float32 [N, 3, S, S], for super-resolution.
        alignments: Where the faces may be, float32 [N, 2, 3].
        jitter: How the crops vary, float32 [N, 2, 3]; see `id3pm.training.variation.jitter`.
    """

    noises: Tensor
    results: Tensor
    places: Tensor
    own: Tensor
    conditions: dict[str, Tensor]
    truth: Tensor | None = None
    alignments: Tensor | None = None
    jitter: Tensor | None = None

    def share(self, rank: int, world: int, device: torch.device) -> PairBatch:
        """The rows of one of `world` processes (every world-th row), on its device."""
        some = slice(rank, None, world)

        def rows(value: Tensor) -> Tensor:
            return value[some].to(device)

        return PairBatch(
            noises=self.noises[:, some].to(device),
            results=rows(self.results),
            places=rows(self.places),
            own=rows(self.own),
            conditions={name: rows(value) for name, value in self.conditions.items()},
            truth=None if self.truth is None else rows(self.truth),
            alignments=None if self.alignments is None else rows(self.alignments),
            jitter=None if self.jitter is None else rows(self.jitter),
        )


class Pairs:
    """Batches of stored pairs, a pure function of (seed, step).

    Args:
        folder: The files of `PairMaker`.
        config: The run.

    Raises:
        InvalidInputError: A file is damaged.
    """

    def __init__(self, folder: Path, config: DistillConfig) -> None:
        files = [read_arrays(pairs_file(folder, number), KIND)[1] for number in range(files_of(config.pairs))]
        self.arrays = {name: np.concatenate([file[name] for file in files]) for name in files[0]}
        self._config = config

    def __len__(self) -> int:
        return len(self.arrays["seeds"])

    @property
    def mean_vector(self) -> Tensor | None:
        """Mean of the ID vectors, float32 [D]."""
        if "identity" not in self.arrays:
            return None
        return torch.from_numpy(self.arrays["identity"].mean(axis=0, dtype=np.float64).astype(np.float32))

    def at(self, step: int) -> PairBatch:
        """The batch of optimiser step `step` (0, 1, ...)."""
        config = self._config
        rows = rows_of_step(config.seed, step, config.batch_size, len(self))
        rng = step_rng(config.seed, STEP_STREAM, step)
        # The last step makes the image, so most rows learn it. Those before come first: every process has its share.
        places = np.full(len(rows), config.steps - 1)
        if config.steps > 1:
            places[: len(rows) // ROWS_PER_EARLIER] = rng.integers(config.steps - 1, size=len(rows) // ROWS_PER_EARLIER)
        own = (rng.random(len(rows)) < config.own_share) & (places > 0)
        batch = self.rows(rows)
        moves = jitter(len(rows), config.identity_jitter, step_rng(config.seed, CROP_STREAM, step))
        return dataclasses.replace(
            batch, places=torch.from_numpy(places), own=torch.from_numpy(own), jitter=torch.from_numpy(moves)
        )

    def rows(self, rows: NDArray[np.int64]) -> PairBatch:
        """Some pairs, all at the noisiest step."""
        some = {name: array[rows] for name, array in self.arrays.items()}
        seeds = some["seeds"].tolist()
        conditions = {name: some[name] for name in CONDITIONS if name in some}
        if "low_res" in conditions:
            conditions["low_res"] = to_chw(conditions["low_res"])
        if "scales" in some:
            conditions["guidance"] = some["scales"]
        size, stage = self._config.train_size, stage_number(self._config.unet.low_res_size)
        noises = [[noise(seed, stage, draw, (3, size, size)) for seed in seeds] for draw in range(self._config.steps)]
        return PairBatch(
            noises=torch.from_numpy(np.array(noises)),
            results=torch.from_numpy(to_chw(some["results"])),
            places=torch.zeros(len(rows), dtype=torch.int64),
            own=torch.zeros(len(rows), dtype=torch.bool),
            conditions={name: torch.from_numpy(value) for name, value in conditions.items()},
            truth=torch.from_numpy(to_chw(some["truth"])) if "truth" in some else None,
            alignments=torch.from_numpy(some["alignments"]) if "alignments" in some else None,
        )
