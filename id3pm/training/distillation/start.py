"""A run as it starts: the student with its first weights, the losses, the critic."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from accelerate import Accelerator

from id3pm.errors import InvalidInputError
from id3pm.face.stage import FaceStage
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import Bundle, load_weights, weights_hash
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.critic import Critic
from id3pm.training.distillation.loop import Distiller
from id3pm.training.distillation.losses import StudentLosses
from id3pm.training.distillation.options import DistillOptions
from id3pm.training.distillation.pairs import PairBatch, Pairs
from id3pm.training.distillation.student import fit_last_layer, from_teacher
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.identity_loss import IdentityLoss
from id3pm.training.session import hardware
from id3pm.unet.model import UNet, load_unet

FITTED, FITTED_ROWS = 8, 8  # batches and rows of each for the last layer


def new_run(
    config: DistillConfig,
    options: DistillOptions,
    bundle: Bundle,
    pairs: Pairs,
    teacher: Teacher,
    accelerator: Accelerator,
) -> Distiller:
    """The run, with the student as it starts."""
    identity = IdentityLoss(options.faces) if config.identity_loss else None
    if identity is not None and identity.id_vector_model != bundle.id_vector_model:
        raise InvalidInputError(
            f"the face models in {options.faces} are {identity.id_vector_model!r}, the teacher takes "
            f"{bundle.id_vector_model!r} vectors; or train with --identity-loss 0"
        )
    network = bundle.base if config.stage == "base" else bundle.sr
    weights = load_weights(options.teacher, config.stage)
    frozen = load_unet(network.at_size(config.train_size), weights)
    losses = StudentLosses(
        frozen,
        bundle.base_diffusion if config.stage == "base" else bundle.sr_diffusion,
        feature_loss=config.feature_loss,
        critic_share=config.critic,
        identity=identity,
        stage=None if identity is None else FaceStage.load(options.faces, threads=1),
        identity_weight=config.identity_loss,
        identity_centring=config.identity_centring,
        mean_vector=pairs.mean_vector,
        mean=functools.partial(_mean, accelerator) if accelerator.num_processes > 1 else None,
    )
    unet = from_teacher(config, weights)
    started = None
    if options.start_from is not None:
        unet.load_state_dict(
            {name: torch.from_numpy(value) for name, value in load_weights(options.start_from, config.stage).items()}
        )
        started = weights_hash(options.start_from, config.stage)
    critic = None
    if config.critic:
        torch.manual_seed(config.seed)
        critic = Critic(feature_channels(frozen))
    about = {} if options.data is None else shards.describe(options.data)
    source = about.get("source", about.get("kind", "generated people"))
    facts = {"hardware": hardware(accelerator), "data": source, "start_from": started}
    distiller = Distiller(config, unet, pairs, teacher, losses, critic, options.out, facts, accelerator)
    if not options.resume and options.start_from is None and config.diffusion.prediction == "v":
        rows = np.arange(FITTED * FITTED_ROWS) % len(pairs)
        parts = [_at_steps(pairs.rows(part), config.steps) for part in np.split(rows, FITTED)]
        device = accelerator.device
        fit_last_layer(distiller.unet, distiller.steps, [part.share(0, 1, device) for part in parts])
        distiller.restart_average()
    return distiller


def _mean(accelerator: Accelerator, value: float) -> float:
    """A number's mean over all processes."""
    return float(accelerator.reduce(torch.tensor(value, device=accelerator.device), "mean"))


def _at_steps(batch: PairBatch, steps: int) -> PairBatch:
    """The rows of a batch at all steps in turn."""
    return dataclasses.replace(batch, places=torch.arange(len(batch.places)) % steps)


def feature_channels(teacher: UNet) -> list[int]:
    """Channels of the teacher's feature maps, finest first; see `UNet.features`."""
    config = teacher.config
    given = {name: torch.zeros(1, dim) for name, dim in _condition_dims(teacher).items()}
    if config.low_res_size is not None:
        given["low_res"] = torch.zeros(1, 3, config.low_res_size, config.low_res_size)
    with torch.no_grad():
        maps = teacher.features(torch.zeros(1, 3, config.image_size, config.image_size), torch.zeros(1), **given)
    return [one.shape[1] for one in maps]


def _condition_dims(teacher: UNet) -> dict[str, int]:
    dims = {"identity": teacher.config.identity_dim, "attributes": teacher.config.attribute_dim}
    return {name: dim for name, dim in dims.items() if dim is not None}
