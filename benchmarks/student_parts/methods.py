"""The methods that are compared, and a student of each after the same processor time."""

from __future__ import annotations

import dataclasses
import json
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from accelerate import Accelerator

from id3pm.config import to_json
from id3pm.errors import CheckpointError
from id3pm.face.stage import FaceStage
from id3pm.formats.arrays import read_arrays
from id3pm.formats.bundle import load_weights, read_bundle, weights_hash
from id3pm.training.distillation.config import DistillConfig, student_network
from id3pm.training.distillation.critic import Critic
from id3pm.training.distillation.loop import FILE_NAME, Distiller, load
from id3pm.training.distillation.losses import StudentLosses
from id3pm.training.distillation.pairs import KIND, SHARD, Pairs, pairs_file, require_same
from id3pm.training.distillation.start import feature_channels
from id3pm.training.distillation.student import from_teacher
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.identity_loss import IdentityLoss
from id3pm.unet.model import UNet, load_unet
from student_parts.consistency import ConsistencyDistiller
from student_parts.matching import MatchingDistiller, half_square

STEPS = 2  # of the students
GUIDANCE_RANGE = (1.0, 3.0)
ENDLESS = 1_000_000  # optimiser steps: the time ends a run
LAST_STEPS = 20  # whose losses are reported
SAVE_S = 60.0  # processor seconds between checkpoints
LATE = 1.1  # of the time: its last optimiser step may end later


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train a student.

    Attributes:
        about: For the table.
        changes: Of the defaults of `id3pm distill`.
        run: The class of its runs.
    """

    about: str
    changes: Mapping[str, Any]
    run: Callable[..., Distiller] = Distiller


METHODS: Mapping[str, Method] = types.MappingProxyType(
    {
        "guidance": Method("guidance distillation: regression alone", {"critic": 0.0, "identity_loss": 0.0}),
        "shipped": Method("the same with critic and identity loss: what ships", {}),
        "progressive": Method("as what ships, targets of three steps", {"target_steps": 3}),
        "consistency": Method(
            "consistency distillation", {"critic": 0.0, "identity_loss": 0.0}, run=ConsistencyDistiller
        ),
        "dmd2": Method("distribution matching (DMD2)", {"identity_loss": 0.0}, run=MatchingDistiller),
        "dmd2_identity": Method("the same with the identity loss", {}, run=MatchingDistiller),
    }
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all methods have in common.

    Attributes:
        bundle: Folder of the teacher's bundle.
        teacher: The same by its engine.
        pairs: Folder of stored pairs of this teacher.
        faces: Face engine folder, for the identity loss.
        config: Of all runs, but for the changes of a method.
        minutes: Processor time of each.
    """

    bundle: Path
    teacher: Teacher
    pairs: Path
    faces: Path
    config: DistillConfig
    minutes: float

    def config_of(self, method: Method) -> DistillConfig:
        """The run of a method."""
        return dataclasses.replace(self.config, **method.changes)


def common_config(bundle: Path, pairs: Path, **changes: Any) -> DistillConfig:
    """The run of all methods: the defaults of `id3pm distill` on all stored pairs.

    Args:
        bundle: Folder of the teacher's bundle.
        pairs: Folder of stored pairs.
        **changes: Other values.

    Raises:
        CheckpointError: The pairs are of other weights, another size or other guidance scales.
    """
    found = read_bundle(bundle)
    unet, diffusion = student_network(found, "base", STEPS, GUIDANCE_RANGE)
    config = DistillConfig(
        teacher=found.name,
        teacher_weights_sha256=weights_hash(bundle, "base"),
        unet=unet,
        diffusion=diffusion,
        train_size=unet.image_size,
        pairs=SHARD * len(list(pairs.glob("pairs_*.npz"))),
        total_steps=ENDLESS,
    )
    require_same(
        read_arrays(pairs_file(pairs, 0), KIND)[0],
        {
            "teacher_weights_sha256": config.teacher_weights_sha256,
            "train_size": config.train_size,
            "guidance_range": list(GUIDANCE_RANGE),
            "sampling": to_json(found.sampling),
        },
    )
    return dataclasses.replace(config, **changes)


def begun(method: Method, setting: Setting, folder: Path, facts: dict[str, Any]) -> Distiller:
    """A run of a method at its start: the teacher's weights.

    Args:
        method: The method.
        setting: What all have in common.
        folder: Of its checkpoint.
        facts: What the checkpoint says besides, as it is when it is written.
    """
    config, bundle = setting.config_of(method), read_bundle(setting.bundle)
    weights = load_weights(setting.bundle, "base")
    frozen = load_unet(bundle.base, weights)
    pairs = Pairs(setting.pairs, config)
    matching = method.run is MatchingDistiller
    losses = StudentLosses(
        frozen,
        bundle.base_diffusion,
        feature_loss=0.0,
        critic_share=config.critic,
        identity=IdentityLoss(setting.faces) if config.identity_loss else None,
        stage=FaceStage.load(setting.faces, threads=1) if config.identity_loss else None,
        identity_weight=config.identity_loss,
        identity_centring=config.identity_centring,
        mean_vector=pairs.mean_vector,
        pixel_loss=half_square if matching else None,
    )
    torch.manual_seed(config.seed)
    critic = Critic(feature_channels(frozen)) if config.critic else None
    more = {"fake": from_teacher(config, weights)} if matching else {}
    accelerator = Accelerator(cpu=True, mixed_precision=config.precision)
    given = (config, from_teacher(config, weights), pairs, setting.teacher, losses, critic, folder, facts, accelerator)
    return method.run(*given, **more)


def trained(name: str, setting: Setting, out: Path) -> tuple[UNet, dict[str, Any]]:
    """The averaged student of a method after the time, and what its training reached.

    What `out` has is loaded; a run of less time, or one that was interrupted, goes on.

    Raises:
        CheckpointError: `out` has a student that was trained otherwise, or for longer.
    """
    method, folder = METHODS[name], out / name
    config, unet = setting.config_of(method), UNet(setting.config.unet)
    weights, said = (folder / f"{part}_{setting.minutes:g}" for part in ("student", "training"))
    if not said.exists():
        folder.mkdir(parents=True, exist_ok=True)
        reached = _trained(name, setting, folder, weights)
        said.write_text(json.dumps({"config": to_json(config), **reached}, indent=1) + "\n", encoding="utf-8")
    found = json.loads(said.read_text(encoding="utf-8"))
    if found["config"] != json.loads(json.dumps(to_json(config))):
        raise CheckpointError(f"the student in {folder} was trained otherwise: choose another --out")
    unet.load_state_dict(torch.load(weights, weights_only=True))
    return unet.eval(), {name: value for name, value in found.items() if name != "config"}


def _trained(name: str, setting: Setting, folder: Path, weights: Path) -> dict[str, Any]:
    """Trains until the time is over, with a checkpoint every minute; writes the averaged weights."""
    budget, facts = 60.0 * setting.minutes, {"processor_s": 0.0}
    run = begun(METHODS[name], setting, folder, facts)
    if (folder / FILE_NAME).exists():
        run.resume()
        facts["processor_s"] = load(folder)[0]["facts"]["processor_s"]
        if facts["processor_s"] > budget:
            raise CheckpointError(
                f"{folder} was trained for {facts['processor_s']:.0f} s: ask for more, or another --out"
            )
    saved, recent = facts["processor_s"], []
    while facts["processor_s"] < budget:
        before = time.process_time()
        recent = [*recent, run.train_step()][-LAST_STEPS:]
        facts["processor_s"] += time.process_time() - before
        if facts["processor_s"] - saved > SAVE_S:
            saved = facts["processor_s"]
            run.save()
            click.echo(f"{name}: {run.step} steps, {saved:.0f} s, {_mean_losses(recent)}", err=True)
    run.save()
    with run.averaged() as averaged:
        torch.save({key: value.clone() for key, value in averaged.state_dict().items()}, weights)
    return {"minutes": setting.minutes, "steps": run.step, **facts, "losses": _mean_losses(recent)}


def untrained(setting: Setting) -> UNet:
    """The student as all methods begin: the teacher without guidance."""
    return from_teacher(setting.config, load_weights(setting.bundle, "base")).eval()


def _mean_losses(losses: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([one[name] for one in losses])), 5) for name in losses[-1]}
