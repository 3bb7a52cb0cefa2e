"""A stream of generated people for training: none repeats, none is stored, each is a function of (seed, number).

The pictures are those of `id3pm.training.demo_data`: generated faces that the detector accepts. Person n is
the first accepted one of the candidates Philox(seed, 256 n), Philox(seed, 256 n + 1), ... So any step can be made by
itself, and a resumed run continues with the same people as an uninterrupted one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from id3pm.errors import EngineError
from id3pm.training.batch import Batch, Batches
from id3pm.training.data import FaceBatches, Faces
from id3pm.training.demo_data import DEMO_FILTER
from id3pm.training.embedding import Embedder
from id3pm.training.gan import FaceGenerator
from id3pm.training.presets import TrainConfig

ATTEMPTS = 256  # candidates for one person; the filter accepts about 0.6 of them
MEAN_PEOPLE = 64  # the first people, for the mean vector
AHEAD = 6  # steps that are ready before they are needed


class GeneratedPeople:
    """The generator, the detector and the FR model, in this process.

    Args:
        seed: Seed of the people. The held-out people of a demo data set use its seed: choose another one.
        faces: Face engine folder.
    """

    def __init__(self, seed: int, faces: Path) -> None:
        self._seed = seed
        self._generator = FaceGenerator()
        self._embedder = Embedder(faces, threads=1)

    def take(self, numbers: Sequence[int], flips: Sequence[bool]) -> Faces:
        """People by number, each mirrored where its flip is true.

        Raises:
            EngineError: No candidate of a person was accepted: the generator and the detector do not fit together.
        """
        found: dict[int, tuple[Any, ...]] = {}
        for attempt in range(ATTEMPTS):
            missing = [place for place in range(len(numbers)) if place not in found]
            if not missing:
                images, vectors, detections = (
                    np.stack([found[place][part] for place in range(len(numbers))]) for part in range(3)
                )
                return Faces(images, vectors, detections[:, 4:14].reshape(-1, 5, 2).astype(np.float64))
            pixels = self._generator.sample(self._seed, [ATTEMPTS * numbers[place] + attempt for place in missing])
            mirrored = np.array([flips[place] for place in missing])
            pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
            kept = self._embedder.embed(np.ascontiguousarray(pixels), DEMO_FILTER, mirror=False)
            for row, vector, detection in zip(kept.rows, kept.vectors, kept.detections, strict=True):
                found[missing[row]] = (pixels[row], vector, detection)
        raise EngineError(f"none of {ATTEMPTS} generated faces was accepted: are the face models in order?")


def stream_batches(seed: int, faces: Path, config: TrainConfig) -> BatchesAhead:
    """The batches of a run on people that no other step has.

    Every training process makes the whole of each batch, so that their number does not change what is trained on. For
    many GPUs a stored data set is cheaper.

    Args:
        seed: See `GeneratedPeople`.
        faces: Face engine folder.
        config: The run; without attributes, which are measured on stored pictures.
    """
    return BatchesAhead(_Steps(seed, faces, config), config.total_steps)


def stream_source(seed: int, faces: Path, config: TrainConfig) -> Batches:
    """As `stream_batches`, made in this process when they are asked for, in any order."""
    return _StreamedFaces(GeneratedPeople(seed, faces), config)


class BatchesAhead:
    """Batches that are made in a process of their own while the network is trained.

    Args:
        made: Step -> batch; goes to that process, so it can be pickled.
        total_steps: Steps of the run: none is made beyond.
    """

    def __init__(self, made: Dataset[Batch], total_steps: int) -> None:
        self._made = made
        self._total = total_steps
        self._next = 0
        self._ahead: Iterator[Batch] | None = None

    def at(self, step: int) -> Batch:
        """See `Batches.at`. Steps in order are made ahead of time; a step out of order restarts the process there."""
        if self._ahead is None or step != self._next:
            loader = DataLoader(
                self._made,
                batch_size=None,
                sampler=range(step, self._total),
                num_workers=1,
                prefetch_factor=AHEAD,
                multiprocessing_context="spawn",
                worker_init_fn=_leave_signals,
            )
            self._ahead, self._next = iter(loader), step
        self._next += 1
        return next(self._ahead)


class _StreamedFaces(FaceBatches):
    """`FaceBatches` of the stream, in the process that makes them."""

    def __init__(self, people: GeneratedPeople, config: TrainConfig) -> None:
        first = people.take(range(MEAN_PEOPLE), [False] * MEAN_PEOPLE) if config.altered_vectors else None
        arrays: dict[str, NDArray[Any]] = {
            "images": np.zeros((0, config.unet.image_size, config.unet.image_size, 3), np.uint8),
            "vectors": np.zeros((1, config.unet.identity_dim or 0), np.float32) if first is None else first.vectors,
        }
        super().__init__(arrays, config)
        self._people = people

    def _rows(self, step: int) -> NDArray[np.int64]:
        size = self._config.batch_size
        return np.arange(step * size, (step + 1) * size, dtype=np.int64)

    def _faces(self, rows: NDArray[np.int64], flips: NDArray[np.bool_]) -> Faces:
        return self._people.take(rows.tolist(), flips.tolist())


class _Steps(Dataset[Batch]):
    """Step -> batch, for torch's loader; the networks are loaded in the process that makes the batches."""

    def __init__(self, seed: int, faces: Path, config: TrainConfig) -> None:
        self._seed, self._faces, self._config = seed, faces, config
        self._batches: _StreamedFaces | None = None

    def __getitem__(self, step: int) -> Batch:
        if self._batches is None:
            self._batches = _StreamedFaces(GeneratedPeople(self._seed, self._faces), self._config)
        return self._batches.at(step)


def _leave_signals(worker: int) -> None:
    """Joins no process group that Ctrl-C or torchrun's SIGTERM reaches: training stops in order, and then ends this."""
    os.setpgrp()
