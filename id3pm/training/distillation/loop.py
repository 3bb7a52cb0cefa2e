"""The loop that trains a student: one process or many, CPU or GPU, through accelerate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from id3pm.config import from_json, to_json
from id3pm.errors import CheckpointError
from id3pm.training import checkpoint as checkpoints
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.critic import Critic
from id3pm.training.distillation.losses import StudentLosses
from id3pm.training.distillation.pairs import PairBatch, Pairs
from id3pm.training.distillation.student import StudentSteps
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.ema import Ema
from id3pm.training.half_precision import keep_fp32
from id3pm.training.random_streams import step_rng
from id3pm.training.stepped_run import Losses, SteppedRun
from id3pm.unet.checkpoint import read_plain
from id3pm.unet.model import UNet

NOISE_STREAM = 13  # second key word of Philox, beside those of `id3pm.training.distillation.pairs`
GUIDANCE_SPEED = 50.0  # factor on the learning rate of what embeds the guidance scale
FREE = ("total_steps", "gradient_checkpointing", "precision")
"""Fields that may change when a run goes on."""
FILE_NAME = checkpoints.FILE_NAME


class Distiller(SteppedRun):
    """One run: the student, the critic, their optimisers, and how far it is.

    Args:
        config: The run.
        unet: The student; with its starting weights.
        pairs: The teacher's results.
        teacher: The teacher.
        losses: The losses.
        critic: The critic; `None` where `config.critic` is 0.
        folder: Where the checkpoint lies.
        facts: For the training card: hardware, source of the vectors.
        accelerator: Devices, processes, precision.
    """

    def __init__(
        self,
        config: DistillConfig,
        unet: UNet,
        pairs: Pairs,
        teacher: Teacher,
        losses: StudentLosses,
        critic: Critic | None,
        folder: Path,
        facts: dict[str, Any],
        accelerator: Accelerator,
    ) -> None:
        self.config, self.step, self.seconds = config, 0, 0.0
        self._teacher = teacher
        self._pairs, self._folder, self._facts, self._accelerator = pairs, folder, facts, accelerator
        self._losses = losses.to(accelerator.device)
        self.steps = StudentSteps(config.diffusion, accelerator.device)
        unet.gradient_checkpointing = config.gradient_checkpointing
        keep_fp32(unet)
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(parameter_groups(unet), lr=config.learning_rate, weight_decay=0.0, fused=True)
        self._model, self._optimizer = accelerator.prepare(unet.train(), optimizer)
        self._critic: Any = None
        self._critic_optimizer: Any = None
        if critic is not None:
            own = torch.optim.AdamW(critic.parameters(), lr=config.critic_learning_rate, betas=(0.5, 0.99), fused=True)
            self._critic, self._critic_optimizer = accelerator.prepare(critic.train(), own)
        self._ema = Ema(self.unet.named_parameters(), rate=config.ema_rate, warm_up=True)

    @property
    def is_main_process(self) -> bool:
        """The process that writes files."""
        return bool(self._accelerator.is_main_process)

    @property
    def unet(self) -> UNet:
        """The student as it is now (not the average)."""
        unwrapped: UNet = self._accelerator.unwrap_model(self._model, keep_fp32_wrapper=False)
        return unwrapped

    @property
    def total_steps(self) -> int:
        """Optimiser steps in all."""
        return self.config.total_steps

    def train_step(self) -> Losses:
        """One optimiser step of the student and of the critic; the losses of this process's rows."""
        started = time.perf_counter()
        config, accelerator = self.config, self._accelerator
        rank = accelerator.process_index
        batch = self._pairs.at(self.step).share(rank, accelerator.num_processes, accelerator.device)
        counter = self.step * accelerator.num_processes + rank
        torch.manual_seed(int(step_rng(config.seed, NOISE_STREAM, counter).integers(2**62)))
        for group in self._optimizer.param_groups:
            warm = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
            group["lr"] = config.learning_rate * warm * group.get("speed", 1.0)
        losses = self._backward(batch)
        accelerator.clip_grad_norm_(self._model.parameters(), config.grad_clip)
        for optimizer in (self._optimizer, self._critic_optimizer):
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        self._ema.update(self.unet.named_parameters())
        self.step += 1
        self.seconds += time.perf_counter() - started
        return losses

    def _backward(self, batch: PairBatch) -> Losses:
        steps, places = self.steps, batch.places
        with self._accelerator.autocast():
            x = steps.own_inputs(self.unet, batch)
            targets = self._targets(x, batch)
        # An autocast of its own: inside the one above it would find the weights as they were cast without gradients.
        with self._accelerator.autocast():
            output = self._model(x, steps.at("timestep", places), **batch.conditions).float()
        predicted = steps.x0(x, output, places)
        with self._accelerator.autocast():
            found = self._losses.judge(predicted, targets, batch, self._critic, self.step)
        torch.autograd.backward(predicted, found.gradient)
        if found.critic is not None:
            self._accelerator.backward(found.critic)
        return {name: float(value) for name, value in found.terms.items()}

    def _targets(self, x: Tensor, batch: PairBatch) -> Tensor:
        """What the student's images are regressed to."""
        if batch.truth is not None:  # of every other row the true image: sharper, but the teacher's keeps the noise
            even = torch.arange(len(x), device=x.device) % 2 == 0
            return torch.where(even.view(-1, 1, 1, 1), batch.results, batch.truth)
        # Of pure noise the teacher's own prediction is of no use as a finished image.
        if self.config.steps == 1:
            return batch.results
        given = {name: value.cpu().numpy() for name, value in batch.conditions.items()}
        scales, timesteps = given.pop("guidance"), self.config.diffusion.student_timesteps or ()
        places, noisy = batch.places.cpu().numpy(), x.cpu().numpy()
        targets = self._teacher.guided(noisy, timesteps, places, scales, given)
        if self.config.target_steps > 1:
            last = np.flatnonzero(places == self.config.steps - 1)
            some = {name: value[last] for name, value in given.items()}
            targets[last] = self._teacher.finished(
                noisy[last], timesteps[0], self.config.target_steps, scales[last], some
            )
        return torch.from_numpy(targets).to(x)

    def save(self) -> None:
        """Writes the checkpoint; called in every process, done by the first.

        Raises:
            CheckpointError: Weights hold NaN or infinity; the previous checkpoint stays.
        """
        self._accelerator.wait_for_everyone()
        if not self.is_main_process:
            return
        model = self.unet.state_dict()
        if problem := checkpoints.not_finite_in(model, self._ema.average):
            raise CheckpointError(f"step {self.step}: {problem}. The checkpoint before this step is kept")
        state = {
            "config": to_json(self.config),
            "step": self.step,
            "model": model,
            "optimizer": self._optimizer.state_dict(),
            "ema_updates": self._ema.updates,
            "ema": self._ema.average,
            "balance": self._losses.balance,
            "facts": {**self._facts, "training_seconds": round(self.seconds)},
        }
        if self._critic is not None:
            state["critic"] = self._accelerator.unwrap_model(self._critic).state_dict()
            state["critic_optimizer"] = self._critic_optimizer.state_dict()
        checkpoints.write(self._folder, state)

    def resume(self) -> None:
        """Goes on from the checkpoint in the folder.

        Raises:
            CheckpointError: There is none, or it belongs to another run.
        """
        state, config = load(self._folder)
        for name, value in vars(self.config).items():
            if (saved := getattr(config, name)) != value and name not in FREE:
                raise CheckpointError(
                    f"the checkpoint was trained with {name}={saved!r}, asked for is {value!r}: use another folder"
                )
        self.unet.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._ema.load_state_dict(state["ema_updates"], state["ema"])
        self._losses.balance = state["balance"]
        if self._critic is not None:
            self._accelerator.unwrap_model(self._critic).load_state_dict(state["critic"])
            self._critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.step, self.seconds = state["step"], float(state["facts"]["training_seconds"])
        self._facts["start_from"] = state["facts"].get("start_from")

    def restart_average(self) -> None:
        """Begins the average anew, with the weights as they are now."""
        self._ema = Ema(self.unet.named_parameters(), rate=self.config.ema_rate, warm_up=True)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[UNet]:
        """The student with the averaged weights, in evaluation mode, inside the `with` block."""
        unet = self.unet
        current: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in unet.named_parameters()}
        unet.load_state_dict(self._ema.average)
        try:
            yield unet.eval()
        finally:
            unet.load_state_dict(current)
            unet.train()


def parameter_groups(unet: UNet) -> list[dict[str, Any]]:
    """The optimiser's parameters: what embeds the guidance scale begins at zero, and may move faster than the rest.

    `speed` is that group's factor on the learning rate.
    """
    named = list(unet.named_parameters())
    own = [parameter for name, parameter in named if name.startswith("guidance_embed.")]
    rest = [parameter for name, parameter in named if not name.startswith("guidance_embed.")]
    return [{"params": rest}, {"params": own, "speed": GUIDANCE_SPEED}] if own else [{"params": rest}]


def load(folder: Path) -> tuple[dict[str, Any], DistillConfig]:
    """The newest checkpoint of a distillation run and its configuration; runs no code from the file.

    Raises:
        CheckpointError: There is none, or it is no checkpoint of a distillation run.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {FILE_NAME}: id3pm distill --out {folder}")
    state = read_plain(file)
    try:
        return state, from_json(DistillConfig, state["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is no checkpoint of a distillation run: {error}") from error
