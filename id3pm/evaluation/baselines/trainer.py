"""Training of a baseline: resumable, on pictures and ID vectors of a data set of this package."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from id3pm.errors import CheckpointError, InvalidInputError
from id3pm.evaluation.baselines.labelled import PICTURES
from id3pm.formats import datasets
from id3pm.formats.images import to_chw
from id3pm.training.random_streams import ROW_STREAM, rows_of_step, step_rng
from id3pm.unet.checkpoint import read_plain

CHECKPOINT = "checkpoint.pt"
LEAST_LABELLED = 4
"""Pictures of a batch of a labelled data set: distances within one person alone have no scale."""
OnStep = Callable[[Mapping[str, float]], object]
Precision = Literal["fp32", "bf16"]
"""Of a step's products: with bf16 weights, losses and the optimiser stay in fp32 (torch.autocast)."""


class Trainable(Protocol):
    """What is trained. All of its randomness follows from the step."""

    def step(self, step: int) -> Mapping[str, float]:
        """One optimiser step; its losses by name."""
        ...

    def state(self) -> dict[str, Any]:
        """Tensors and numbers from which `restore` goes on."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        ...


def channels_last(network: nn.Module) -> None:
    """Lays out the weights of a network's convolutions channels last, in place: steps are faster on a CPU."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Pairs:
    """Pictures and their ID vectors, in batches that are a function of (seed, step); every second one is mirrored.

    Held-out people are never among them. Of a labelled data set (`id3pm baseline labelled`) a batch has two pictures of
    each of its people.

    Args:
        folder: The data set.
        batch_size: Rows of a batch.
        image_size: Side that the pictures must have.
        seed: Of the order.

    Raises:
        InvalidInputError: The data set has pictures of another size, or fewer than a batch; or the batch is too small.
    """

    def __init__(self, folder: Path, batch_size: int, image_size: int, seed: int = 0) -> None:
        description = datasets.describe(folder)
        arrays = datasets.load(folder, "train")
        side = arrays["images"].shape[2]
        if side != image_size:
            raise InvalidInputError(f"the pictures of {folder} have {side} px: this method is trained on {image_size}")
        if len(arrays["images"]) < batch_size:
            raise InvalidInputError(f"{folder} has {len(arrays['images'])} people to train on: a batch is {batch_size}")
        self._pictures = int(description.get(PICTURES, 1))
        if self._pictures > 1 and batch_size < LEAST_LABELLED:
            raise InvalidInputError(
                f"batches of {batch_size}: of a labelled data set they need {LEAST_LABELLED} or more, two people"
            )
        self.id_vector_model: str = description["id_vector_model"]
        self.identity_dim: int = arrays["vectors"].shape[1]
        people = len(arrays["images"]) // self._pictures
        self.facts = {"name": folder.name, "seed": description.get("seed"), "people": people}
        if self._pictures > 1:
            self.facts["pictures of each"] = self._pictures
        self._arrays, self._batch_size, self._seed = arrays, batch_size, seed

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures [N, 3, S, S] in [-1, 1] and ID vectors [N, D]."""
        arrays = self._arrays
        random = step_rng(self._seed, ROW_STREAM, step)
        rows = self._rows(step, random)
        flips = random.random(len(rows)) < 0.5
        images = arrays["images"][rows]
        images = np.where(flips[:, None, None, None], images[:, :, ::-1], images)
        vectors = np.where(flips[:, None], arrays["flipped_vectors"][rows], arrays["vectors"][rows])
        return torch.from_numpy(to_chw(images)), torch.from_numpy(vectors.astype(np.float32))

    def _rows(self, step: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Numbers of a batch's pictures; for a labelled data set two of each person, next to each other."""
        size, pictures, count = self._batch_size, self._pictures, len(self._arrays["images"])
        if pictures == 1:
            return rows_of_step(self._seed, step, size, count)
        people = rows_of_step(self._seed, step, -(-size // 2), count // pictures)
        two = random.permuted(np.tile(np.arange(pictures), (len(people), 1)), axis=1)[:, :2]
        rows: NDArray[np.int64] = (people[:, None] * pictures + two).reshape(-1)[:size]
        return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training run.

    Attributes:
        folder: Has the checkpoint.
        steps: Optimiser steps in all.
        resume: Go on from the checkpoint; else there must be none.
        save_every: Steps between checkpoints.
        precision: See `Precision`.
        description: What the run is, as JSON; a resumed run must agree with it.
    """

    folder: Path
    steps: int
    resume: bool
    save_every: int
    precision: Precision
    description: Mapping[str, Any]


def train(
    trained: Trainable, run: Run, on_step: OnStep = lambda losses: None, on_start: OnStep = lambda at: None
) -> float:
    """Trains to the last step; a run that is stopped loses what came after its last checkpoint.

    Args:
        trained: See `Trainable`.
        run: See `Run`.
        on_step: Called with the losses of each step.
        on_start: Called once with `{"step": steps that are done already}`.

    Returns:
        Seconds of training, those before a resumption included.

    Raises:
        CheckpointError: There is a checkpoint and `resume` is false, or none and it is true, or it is of another run;
            or a loss is not finite.
    """
    file = run.folder / CHECKPOINT
    done, before = 0, 0.0
    if run.resume:
        saved = _read(file, run.description)
        trained.restore(saved["state"])
        done, before = int(saved["step"]), float(saved["seconds"])
    elif file.exists():
        raise CheckpointError(f"{run.folder} holds a run already: go on with --resume, or choose another folder")
    run.folder.mkdir(parents=True, exist_ok=True)
    on_start({"step": done})
    started = time.perf_counter()
    for step in range(done, run.steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bf16"):
            losses = trained.step(step)
        for name, value in losses.items():
            if not np.isfinite(value):
                raise CheckpointError(f"step {step}: loss {name} is {value}; the checkpoint before it is kept")
        on_step(losses)
        if (step + 1) % run.save_every == 0 or step + 1 == run.steps:
            seconds = before + time.perf_counter() - started
            _write(file, {**vars(run), "step": step + 1, "seconds": seconds, "state": trained.state()})
    return before + time.perf_counter() - started


def _write(file: Path, state: Mapping[str, Any]) -> None:
    kept = {name: state[name] for name in ("step", "seconds", "state")} | {"description": dict(state["description"])}
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with partial.open("wb") as stream:
        torch.save(kept, stream)
    os.replace(partial, file)


def _read(file: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    if not file.exists():
        raise CheckpointError(f"{file.parent} has no {CHECKPOINT}: leave --resume out to begin")
    saved = read_plain(file)
    if not isinstance(saved, dict) or not {"step", "seconds", "state", "description"} <= set(saved):
        raise CheckpointError(f"{file.name} is no checkpoint of a baseline")
    found: dict[str, Any] = saved["description"]
    for key in sorted({*found, *description}):
        if found.get(key) != description.get(key):
            raise CheckpointError(
                f"{file.parent} holds a run with {key}={found.get(key)!r}, asked for is {description.get(key)!r}: give "
                "the same, or choose another folder"
            )
    return saved
