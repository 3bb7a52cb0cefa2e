"""A student's bundle: averaged weights of distillation runs, stages of earlier students, the teacher's for the rest."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.errors import ConfigError, InvalidInputError
from id3pm.formats.bundle import CONFIG_FILE, Bundle, Storage, load_weights, read_bundle, weights_hash, write_bundle
from id3pm.formats.model_card import write_card
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.loop import load
from id3pm.training.export import recent_losses
from id3pm.training.history import HISTORY_FILE
from id3pm.training.presets import StageName

SHORT = 12  # characters of a hash
ON_THE_CARD = (
    "pairs",
    "teacher_steps",
    "target_steps",
    "feature_loss",
    "identity_loss",
    "critic",
    "own_share",
    "altered_vectors",
)


@dataclasses.dataclass(frozen=True, eq=False)
class _Stage:
    unet: UNetConfig
    diffusion: DiffusionConfig
    sampling: SamplingOptions
    weights: dict[str, NDArray[np.float32]]
    card: dict[str, Any]


def export_student(
    teacher: Path, base: Path | None, sr: Path | None, out: Path, *, name: str, storage: Storage = "fp16"
) -> Bundle:
    """Writes a student's bundle and its model card.

    Args:
        teacher: The teacher's bundle.
        base: Folder of the base stage's run, or the bundle of an earlier student; `None` keeps the teacher's network.
        sr: The same for super-resolution.
        out: The bundle's folder.
        name: The bundle's name.
        storage: Number format of the matrices in the files.

    Raises:
        InvalidInputError: Neither run is given, or the bundle would replace the teacher.
        CheckpointError: A run has no checkpoint.
        ConfigError: A run is of the other stage, or it or a stage of a bundle is no student of this teacher.
    """
    if base is None and sr is None:
        raise InvalidInputError("give --base or --sr: a distillation run to export, or an earlier student")
    if out.resolve() == teacher.resolve():
        raise InvalidInputError(f"--out {out}: that is the teacher's folder, choose another")
    bundle = read_bundle(teacher)
    first, second = _stage(teacher, bundle, "base", base), _stage(teacher, bundle, "sr", sr)
    student = dataclasses.replace(
        bundle,
        name=name,
        base=first.unet,
        base_diffusion=first.diffusion,
        sampling=first.sampling,
        sr=second.unet,
        sr_diffusion=second.diffusion,
        sr_sampling=second.sampling,
        training_card={
            "exported": time.strftime("%Y-%m-%d"),
            "teacher": {"bundle": bundle.name},
            "base": first.card,
            "sr": second.card,
        },
    )
    write_bundle(out, student, first.weights, second.weights, storage=storage)
    write_card(out)
    return student


def _stage(teacher: Path, bundle: Bundle, stage: StageName, run: Path | None) -> _Stage:
    if run is None:
        return _stage_of(teacher, bundle, stage)
    if (run / CONFIG_FILE).exists():
        return _earlier(teacher, stage, run)
    state, config = load(run)
    if config.stage != stage:
        raise ConfigError(f"{run} holds a run of stage {config.stage!r}: a {stage!r} run is needed here")
    if (sha256 := weights_hash(teacher, stage)) != config.teacher_weights_sha256:
        raise ConfigError(
            f"{run} learned from weights {config.teacher_weights_sha256[:SHORT]} of {config.teacher}, the {stage} "
            f"stage of {teacher} has {sha256[:SHORT]}: give the teacher of the run"
        )
    weights = {key: tensor.float().cpu().numpy() for key, tensor in state["ema"].items()}
    sampling = bundle.sampling if stage == "base" else bundle.sr_sampling
    return _Stage(config.unet, config.diffusion, _sampling(sampling, config), weights, _card(state, config, run))


def _stage_of(folder: Path, bundle: Bundle, stage: StageName) -> _Stage:
    """A stage of a bundle as it is."""
    unet, diffusion, sampling = (
        (bundle.base, bundle.base_diffusion, bundle.sampling)
        if stage == "base"
        else (bundle.sr, bundle.sr_diffusion, bundle.sr_sampling)
    )
    return _Stage(unet, diffusion, sampling, load_weights(folder, stage), bundle.training_card.get(stage, {}))


def _earlier(teacher: Path, stage: StageName, folder: Path) -> _Stage:
    """A stage of an earlier student of the same weights."""
    found = _stage_of(folder, read_bundle(folder), stage)
    if found.diffusion.student_timesteps is None:
        raise ConfigError(f"{folder}: its {stage} stage is no student; leave --{stage} out to keep the teacher's")
    learned = found.card.get("teacher", {}).get("weights_sha256")
    if learned != (sha256 := weights_hash(teacher, stage)):
        known = "weights that its card does not name" if learned is None else f"weights {learned[:SHORT]}"
        raise ConfigError(
            f"{folder} learned from {known}, the {stage} stage of {teacher} has {sha256[:SHORT]}: "
            "give the teacher of that student"
        )
    return found


def _sampling(teacher: SamplingOptions, config: DistillConfig) -> SamplingOptions:
    """The student's default: all its steps, and of the teacher's options those that a student honours."""
    scale = 1.0
    if config.unet.guidance_range is not None:
        low, high = config.unet.guidance_range
        scale = min(max(teacher.guidance_scale, low), high)
    return SamplingOptions(
        sampler="student",
        steps=config.steps,
        guidance_scale=scale,
        dynamic_threshold=teacher.dynamic_threshold,
        consistency=teacher.consistency,
    )


def _card(state: dict[str, Any], config: DistillConfig, run: Path) -> dict[str, Any]:
    """The training card of a stage."""
    return {
        "teacher": {"bundle": config.teacher, "weights_sha256": config.teacher_weights_sha256},
        "distillation": {name: getattr(config, name) for name in ON_THE_CARD} | _start(state),
        "steps": state["step"],
        "images_seen": state["step"] * config.batch_size,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "parameters": sum(tensor.numel() for tensor in state["ema"].values()),
        "training_seconds": state["facts"]["training_seconds"],
        "hardware": state["facts"]["hardware"],
        "losses": recent_losses(run / HISTORY_FILE, state["step"]),
        "data": {"images": config.pairs, "description": {"kind": "results of the teacher", "source": _source(state)}},
        "weights": f"exponential moving average, rate {config.ema_rate}",
    }


def _start(state: dict[str, Any]) -> dict[str, str]:
    """The student that the run started from, if one: its weights."""
    started = state["facts"].get("start_from")
    return {} if started is None else {"start_from": started[:SHORT]}


def _source(state: dict[str, Any]) -> str:
    return f"results of the teacher for {state['facts']['data']}"
