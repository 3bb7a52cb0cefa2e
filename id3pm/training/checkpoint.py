"""Training checkpoints: everything that a run needs to resume, in one file that is replaced whole."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from id3pm.config import from_json, to_json
from id3pm.errors import CheckpointError
from id3pm.formats.weights import not_finite
from id3pm.training.presets import TrainConfig
from id3pm.unet.checkpoint import read_plain

FILE_NAME = "checkpoint.pt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state after `step` optimiser steps. All randomness follows from the seed and the step, so none is stored.

    Attributes:
        config: The run.
        step: Optimiser steps done.
        model: Weights by name.
        optimizer: The optimiser's state dict.
        ema_updates: Updates of the average.
        ema: Averaged weights by name.
        scaler: State of fp16's gradient scaler; empty without one.
        rollouts: `id3pm.training.rollouts.Rollouts.state_dict`; empty without.
        facts: Facts for the training card: data set, hardware, seconds of training so far.
    """

    config: TrainConfig
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    ema_updates: int
    ema: dict[str, Tensor]
    scaler: dict[str, Any]
    facts: dict[str, Any]
    rollouts: dict[str, Any] = dataclasses.field(default_factory=dict)


def require_none(folder: Path) -> None:
    """Refuses a folder that already has a run: its checkpoint, perhaps of days, would be replaced.

    Raises:
        CheckpointError: There is a checkpoint.
    """
    if (folder / FILE_NAME).exists():
        raise CheckpointError(f"{folder} holds a run already: go on with --resume, or choose another folder")


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint.pt`; an interrupted write leaves the previous one in place.

    Raises:
        CheckpointError: Weights hold NaN or infinity; the previous checkpoint stays.
    """
    if problem := not_finite_in(checkpoint.model, checkpoint.ema):
        raise CheckpointError(
            f"step {checkpoint.step}: {problem}. The checkpoint before this step is kept: resume it with a lower "
            "learning rate, or another precision"
        )
    write(folder, {**vars(checkpoint), "config": to_json(checkpoint.config)})


def write(folder: Path, state: dict[str, Any]) -> None:
    """Replaces a run's checkpoint file, whole or not at all."""
    partial = folder / f".{FILE_NAME}.{os.getpid()}.tmp"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / FILE_NAME)


def load(folder: Path) -> Checkpoint:
    """The newest checkpoint of a run, on the CPU; runs no code from the file.

    Raises:
        CheckpointError: There is none, it is not from this package, or its weights hold NaN or infinity.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {FILE_NAME}: train first (id3pm train --out {folder})")
    state = read_plain(file)
    if isinstance(config := state.get("config"), dict) and "teacher_weights_sha256" in config:
        raise CheckpointError(
            f"{folder} holds a distillation run: id3pm distill resumes it, id3pm export-student exports it"
        )
    try:
        checkpoint = Checkpoint(**{**state, "config": from_json(TrainConfig, state["config"])})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file.name} is no checkpoint of a training run: {error}") from error
    if problem := not_finite_in(checkpoint.model, checkpoint.ema):
        raise CheckpointError(f"{file}: {problem}")
    return checkpoint


def not_finite_in(*states: dict[str, Tensor]) -> str | None:
    """Error text for weights that hold NaN or infinity; `None` if all numbers are finite."""
    for tensors in states:
        for name, tensor in tensors.items():
            if problem := not_finite({name: tensor.detach().float().cpu().numpy()}):
                return problem
    return None
