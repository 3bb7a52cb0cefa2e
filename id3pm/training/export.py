"""Makes a bundle with its training card from the EMA weights of a base run and a super-resolution run.

Either may come unchanged from a bundle instead: the run of the other stage is not needed then.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import AttributeSet
from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.errors import ConfigError
from id3pm.formats import datasets
from id3pm.formats.bundle import (
    CONFIG_FILE,
    Bundle,
    Storage,
    load_weights,
    read_bundle,
    weights_hash,
    write_bundle,
)
from id3pm.formats.model_card import write_card
from id3pm.training import checkpoint
from id3pm.training.checkpoint import Checkpoint
from id3pm.training.history import HISTORY_FILE
from id3pm.training.presets import StageName, deviations


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """One stage of the new bundle."""

    unet: UNetConfig
    diffusion: DiffusionConfig
    weights: dict[str, NDArray[np.float32]]
    card: dict[str, Any]
    id_vectors: tuple[str, int, AttributeSet | None]
    """Their model and length, and the attribute set; only those of the base stage count."""
    l2_normalised: bool | None = None
    """See `Bundle`; of the base stage."""


@dataclasses.dataclass(frozen=True)
class TaskVector:
    """The difference of two bundles' base networks, before and after one of them learned something.

    Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023. What has no counterpart in the network before,
    such as the embedding of attributes, is taken whole.

    Attributes:
        bundle: After: trained from `start` for some task.
        start: Before.
        share: How much of the difference is added.
    """

    bundle: Path
    start: Path
    share: float = 1.0


def export_bundle(
    base_run: Path,
    sr_run: Path,
    out: Path,
    *,
    name: str,
    licence: str,
    sampling: SamplingOptions,
    sr_sampling: SamplingOptions,
    storage: Storage = "fp16",
    blend: Path | None = None,
    blend_share: float = 0.5,
    data_mean: Path | None = None,
    task: TaskVector | None = None,
) -> Bundle:
    """Writes the bundle of the newest checkpoints of two runs, which may still be training, and its model card.

    Args:
        base_run: Folder of the base run, or of a bundle.
        sr_run: Folder of the super-resolution run, or of a bundle.
        out: The bundle's folder.
        name: The bundle's name.
        licence: Licence of the weights.
        sampling: Default options of the base stage.
        sr_sampling: Default options of the super-resolution stage.
        storage: Number format of the matrices in the files.
        blend: The bundle that the base run started from: its weights stay in part.
        blend_share: Share of the run in the base stage's weights, 0 .. 1, where `blend` is given.
        data_mean: A data set: the base stage begins at the mean colour of its images, else as the run's rollouts did;
            see `DiffusionConfig`.
        task: What another base network learned, which is added to this one.

    Raises:
        CheckpointError: A run has no checkpoint.
        BundleError: A bundle cannot be read.
        ConfigError: A folder holds the other stage, or the stages do not fit each other.
        InvalidInputError: `data_mean` is no data set.
    """
    base, sr = _part(base_run, "base"), _part(sr_run, "sr")
    base = base if blend is None else _blended(base, blend, blend_share)
    base = base if task is None else _with_task(base, task)
    if data_mean is not None:
        base = dataclasses.replace(
            base, diffusion=dataclasses.replace(base.diffusion, data_mean=datasets.mean_colour(data_mean))
        )
    id_vector_model, identity_dim, attribute_set = base.id_vectors
    bundle = Bundle(
        name=name,
        id_vector_model=id_vector_model,
        identity_dim=identity_dim,
        attribute_set=attribute_set,
        base=base.unet,
        base_diffusion=base.diffusion,
        sr=sr.unet,
        sr_diffusion=sr.diffusion,
        sampling=sampling,
        sr_sampling=sr_sampling,
        licence=licence,
        training_card={
            "exported": time.strftime("%Y-%m-%d"),
            "base": base.card,
            "sr": sr.card,
        },
        l2_normalised=base.l2_normalised,
    )
    write_bundle(out, bundle, base.weights, sr.weights, storage=storage)
    write_card(out)
    return bundle


def _part(folder: Path, stage: StageName) -> _Part:
    if (folder / CONFIG_FILE).exists():
        bundle = read_bundle(folder)
        unet, diffusion = (bundle.base, bundle.base_diffusion) if stage == "base" else (bundle.sr, bundle.sr_diffusion)
        card = bundle.training_card.get(stage, {})
        vectors = (bundle.id_vector_model, bundle.identity_dim, bundle.attribute_set)
        return _Part(unet, diffusion, load_weights(folder, stage), card, vectors, bundle.l2_normalised)
    state = _load(folder, stage)
    data = state.facts["data"]["description"]
    vectors = (data["id_vector_model"], data["identity_dim"], data.get("attribute_set"))
    weights = {name: tensor.float().cpu().numpy() for name, tensor in state.ema.items()}
    return _Part(state.config.unet, state.config.diffusion, weights, training_card(state, folder), vectors)


def _blended(run: _Part, bundle: Path, share: float) -> _Part:
    """Weights between those that a run started from and its own.

    Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", CVPR 2022: between the two, a network has
    most of the gain of fine-tuning before it loses its earlier abilities.
    """
    start = _part(bundle, "base")
    if (start.unet, dataclasses.replace(start.diffusion, data_mean=run.diffusion.data_mean)) != (
        run.unet,
        run.diffusion,
    ):
        raise ConfigError(f"{bundle} holds another base network: blend a run with the bundle that it started from")
    sha256 = weights_hash(bundle, "base")
    if (known := run.card.get("started_from", {}).get("weights_sha256")) != sha256:
        raise ConfigError(
            f"the run started from weights {known}, {bundle} has {sha256}: blend it with the bundle it started from"
        )
    weights = {name: (1.0 - share) * start.weights[name] + share * own for name, own in run.weights.items()}
    note = f"{run.card['weights']}; {share:g} of it and {1.0 - share:g} of the weights that the run started from"
    return dataclasses.replace(run, weights=weights, card={**run.card, "weights": note})


def _with_task(base: _Part, task: TaskVector) -> _Part:
    after, before = _part(task.bundle, "base"), _part(task.start, "base")
    unets = {dataclasses.replace(part.unet, attribute_dim=None) for part in (base, after, before)}
    if len(unets) > 1 or base.unet.attribute_dim is not None or before.unet.attribute_dim is not None:
        raise ConfigError(f"{task.bundle} or {task.start} holds another base network than the one to be added to")
    if after.id_vectors[:2] != base.id_vectors[:2]:
        raise ConfigError(f"{task.bundle} takes ID vectors of {after.id_vectors[0]}, not of {base.id_vectors[0]}")
    weights = {
        name: base.weights[name] + task.share * (learned - before.weights[name]) if name in base.weights else learned
        for name, learned in after.weights.items()
    }
    added = {
        "share": task.share,
        "weights_sha256": weights_hash(task.bundle, "base"),
        "start_sha256": weights_hash(task.start, "base"),
    }
    note = f"{base.card['weights']}; to which the difference of two others is added, see task"
    card = {**base.card, "weights": note, "task": {**added, "training": after.card}}
    return dataclasses.replace(base, unet=after.unet, weights=weights, card=card, id_vectors=after.id_vectors)


def training_card(state: Checkpoint, run: Path) -> dict[str, Any]:
    """The training card of a stage: network, data, duration, loss, and deviations from the paper.

    Args:
        state: The run's checkpoint.
        run: The run's folder, for its history.
    """
    config = state.config
    before = {name: state.facts[name] for name in ("started_from",) if name in state.facts}
    return {
        **before,
        "steps": state.step,
        "images_seen": state.step * config.batch_size,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "parameters": sum(tensor.numel() for tensor in state.ema.values()),
        "training_seconds": state.facts["training_seconds"],
        "hardware": state.facts["hardware"],
        "losses": recent_losses(run / HISTORY_FILE, state.step),
        "data": {"images": state.step * config.batch_size, **state.facts["data"]},
        "weights": f"exponential moving average, rate {config.ema_rate}",
        "deviations_from_paper": deviations(config),
    }


def recent_losses(history: Path, step: int, lines: int = 10) -> dict[str, float]:
    """Means over the last lines of a run's history up to a step; empty where it has none."""
    if not history.exists():
        return {}
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["step"] <= step][-lines:]
    names = [name for name in ("mse", "vb") if rows and name in rows[-1]]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def _load(folder: Path, stage: StageName) -> Checkpoint:
    state = checkpoint.load(folder)
    if state.config.stage != stage:
        raise ConfigError(f"{folder} holds a run of stage {state.config.stage!r}: a {stage!r} run is needed here")
    return state
