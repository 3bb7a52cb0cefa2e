"""The training loop: one process or many, CPU or GPU, through accelerate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from id3pm.errors import CheckpointError, ConfigError
from id3pm.training import checkpoint as checkpoints
from id3pm.training.batch import Batch, SharedBatches, Shares, shares_of
from id3pm.training.checkpoint import Checkpoint
from id3pm.training.ema import Ema
from id3pm.training.half_precision import keep_fp32
from id3pm.training.identity_loss import IdentityLoss
from id3pm.training.initial_weights import build, provenance, weights_of_bundle
from id3pm.training.landmark_loss import LandmarkLoss
from id3pm.training.loss import HybridLoss
from id3pm.training.optimizer import learning_rate, load_optimizer, new_optimizer
from id3pm.training.presets import EXECUTION, TrainConfig
from id3pm.training.random_streams import DROPOUT_STREAM, step_rng
from id3pm.training.rollouts import Rollouts
from id3pm.training.stepped_run import Losses, SteppedRun
from id3pm.unet.model import NULL_IDENTITY, UNet


class Trainer(SteppedRun):
    """One run: the network, its optimiser and average, and how far it is.

    Args:
        config: The run.
        batches: Where its data come from.
        folder: Where its checkpoint lies.
        facts: See `Checkpoint.facts`.
        accelerator: Devices, processes, precision.
        identity_loss: For `TrainConfig.identity_loss`.
        landmark_loss: For `TrainConfig.landmark_loss`.
        rollouts: For `TrainConfig.rollouts`.
    """

    def __init__(
        self,
        config: TrainConfig,
        batches: SharedBatches,
        folder: Path,
        facts: dict[str, Any],
        accelerator: Accelerator,
        identity_loss: IdentityLoss | None = None,
        landmark_loss: LandmarkLoss | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self.config = config
        self.step = 0
        self.seconds = 0.0
        self._batches = batches
        self._folder = folder
        self._facts = facts
        self._accelerator = accelerator
        self._loss = HybridLoss(
            config.diffusion,
            learn_sigma=config.unet.learn_sigma,
            min_snr_gamma=config.min_snr_gamma,
            snr_floor=config.snr_floor,
        ).to(accelerator.device)
        for name, loss in (("identity_loss", identity_loss), ("landmark_loss", landmark_loss)):
            if (loss is None) != (getattr(config, name) == 0):
                raise ValueError(f"{name}={getattr(config, name)} and {loss}: give both or none")
        self._identity_loss = None if identity_loss is None else identity_loss.to(accelerator.device)
        self._landmark_loss = None if landmark_loss is None else landmark_loss.to(accelerator.device)
        if (rollouts is None) != (config.rollouts == 0):
            raise ValueError(f"rollouts={config.rollouts} and {rollouts}: give both or none")
        if config.rollouts % accelerator.num_processes:
            raise ConfigError(
                f"rollouts={config.rollouts}: need a multiple of the {accelerator.num_processes} processes"
            )
        self._rollouts = rollouts
        unet = build(config).train()
        unet.gradient_checkpointing = config.gradient_checkpointing
        keep_fp32(unet)
        if config.channels_last:  # PyTorch's annotations do not know this form of `to`
            unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model, self._optimizer = accelerator.prepare(unet, new_optimizer(unet, config))
        self._ema = self._new_average()

    @property
    def is_main_process(self) -> bool:
        """The process that writes files."""
        return bool(self._accelerator.is_main_process)

    @property
    def unet(self) -> UNet:
        """The network as it is now (not the average), which computes in float32 unless it is called under autocast."""
        unwrapped: UNet = self._accelerator.unwrap_model(self._model, keep_fp32_wrapper=False, keep_torch_compile=False)
        return unwrapped

    def _new_average(self) -> Ema:
        config = self.config
        weights = self.unet.named_parameters()
        return Ema(weights, rate=config.ema_rate, warm_up=config.ema_warmup, foreach=config.foreach_ema)

    def ema_weights(self) -> dict[str, Tensor]:
        """The averaged weights by name, as they are now."""
        return self._ema.average

    @property
    def total_steps(self) -> int:
        """Optimiser steps in all."""
        return self.config.total_steps

    def train_step(self) -> Losses:
        """One optimiser step; the losses of this process's rows, averaged."""
        started = time.perf_counter()
        config, accelerator = self.config, self._accelerator
        batch = self._batches.at(self.step)
        # Dropout inside the network draws from torch's global generator: it, too, follows from the step.
        torch.manual_seed(int(step_rng(config.seed, DROPOUT_STREAM, self.step).integers(2**62)))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step) * group.get("speed", 1.0)
        losses = self._backward(batch)
        if config.grad_clip is not None:
            accelerator.clip_grad_norm_(self._model.parameters(), config.grad_clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._ema.update(self.unet.named_parameters())
        self.step += 1
        # Read at the end: the device gets the whole step, all passes of it, before the host waits.
        found = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        self.seconds += time.perf_counter() - started
        return found

    def _backward(self, batch: Shares) -> dict[str, Tensor]:
        """The gradients of this process's rows, in `accumulation` passes of equally many; the losses, averaged.

        Returns:
            Float32 [] each, on the device: nothing here waits for it.
        """
        accelerator, parts = self._accelerator, self.config.accumulation
        losses: dict[str, Tensor] = {}
        for part, share in enumerate(shares_of(self.config, accelerator)):
            rows = batch.share(*share, accelerator.device)
            alone = accelerator.no_sync(self._model) if part + 1 < parts else contextlib.nullcontext()
            with alone:  # the processes exchange their gradients once, with the last part
                terms = self._terms(rows)
                accelerator.backward(terms["loss"].mean() / parts)
            for name, value in terms.items():
                mean = value.detach().float().mean() / parts
                losses[name] = losses[name] + mean if name in losses else mean
        return losses

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        x_t = self._loss.q_sample(batch.x0, batch.t, batch.noise)
        output, sampled = self._outputs(batch, x_t)
        terms: dict[str, Tensor] = self._loss(output, batch.x0, x_t, batch.t, batch.noise)
        if sampled is not None:
            terms |= {"loss": terms["loss"] + self.config.rollout_loss * sampled.mean(), "sampled": sampled}
        if self._identity_loss is None and self._landmark_loss is None:
            return terms
        predicted = self._loss.predict_x0(output[:, : x_t.shape[1]], x_t, batch.t)
        share = self._loss.image_share(batch.t)
        if self._identity_loss is not None:
            identity = self._identity_loss(predicted, batch.alignments, batch.conditions["identity"], share)
            terms |= {"loss": terms["loss"] + self.config.identity_loss * identity, "identity": identity}
        if self._landmark_loss is not None:
            attributes = batch.conditions["attributes"]
            landmarks = self._landmark_loss(predicted, batch.alignments, attributes, share)
            terms |= {"loss": terms["loss"] + self.config.landmark_loss * landmarks, "landmarks": landmarks}
        return terms

    def _outputs(self, batch: Batch, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's output for the batch, and the loss of the rollouts, which go through it together."""
        t = self._loss.timesteps(batch.t)
        if self._rollouts is None or batch.rollouts is None:
            return self._evaluated(x_t, t, **batch.conditions), None
        rollouts = self._rollouts
        rollouts.begin(batch.rollouts, self.step, self._without_gradient)
        x, timestep, identity = rollouts.inputs()
        unconditional = self._without_gradient(x, timestep, torch.full_like(identity, NULL_IDENTITY))
        identities = torch.cat([batch.conditions["identity"], identity])
        output = self._evaluated(torch.cat([x_t, x]), torch.cat([t, timestep]), identity=identities)
        own, theirs = output[: len(x_t)], output[len(x_t) :]
        return own, rollouts.advance(theirs, unconditional, batch.rollouts)

    def _evaluated(self, x: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """The output with gradients, in the run's precision: `unet` has taken accelerate's own autocast off."""
        with self._accelerator.autocast():
            output: Tensor = self._model(x, timestep, **conditions)
        return output.float()

    def _without_gradient(self, x: Tensor, timestep: Tensor, identity: Tensor) -> Tensor:
        with torch.no_grad(), self._accelerator.autocast():
            output: Tensor = self.unet(x, timestep, identity=identity).float()
        return output

    def save(self) -> None:
        """Writes the checkpoint; called in every process, done by the first."""
        self._accelerator.wait_for_everyone()
        rollouts = self._rollout_state()
        if not self._accelerator.is_main_process:
            return
        scaler = self._accelerator.scaler
        state = Checkpoint(
            config=self.config,
            step=self.step,
            model=self.unet.state_dict(),
            optimizer=self._optimizer.state_dict(),
            ema_updates=self._ema.updates,
            ema=self.ema_weights(),
            scaler={} if scaler is None else scaler.state_dict(),
            rollouts=rollouts,
            facts={**self._facts, "training_seconds": round(self.seconds)},
        )
        checkpoints.save(self._folder, state)

    def _rollout_state(self) -> dict[str, Tensor]:
        """The rollouts of all processes, in order; called in every process."""
        if self._rollouts is None:
            return {}
        own, world = self._rollouts.state_dict(), self._accelerator.num_processes
        if world == 1:
            return own
        # One process after the other is gathered; row i of all is row i // world of process i % world.
        gathered = {name: self._accelerator.gather(value.to(self._accelerator.device)) for name, value in own.items()}
        return {name: value.unflatten(0, (world, -1)).transpose(0, 1).flatten(0, 1) for name, value in gathered.items()}

    def start_from(self, bundle: Path) -> None:
        """Takes the weights of a bundle instead of random ones, for the average too; noted in the training card.

        A bundle has no optimiser state: this is step 0 of a new run, with the learning rate's warm-up.

        Args:
            bundle: A bundle's folder.

        Raises:
            BundleError: It cannot be read.
            ConfigError: Its network or its noising process is another one than this run's.
        """
        self.unet.load_state_dict(weights_of_bundle(bundle, self.config, self.unet))
        self._ema = self._new_average()
        self._facts["started_from"] = provenance(bundle, self.config.stage)

    def resume(self, *, allow_data_change: bool = False) -> None:
        """Goes on from the checkpoint in the folder: the next step is the one an uninterrupted run would do.

        Args:
            allow_data_change: Go on although the data set is another one now.

        Raises:
            CheckpointError: There is none, or it belongs to another run.
        """
        state = checkpoints.load(self._folder)
        for name, value in vars(self.config).items():
            if (saved := getattr(state.config, name)) != value and name not in ("total_steps", "precision", *EXECUTION):
                raise CheckpointError(
                    f"the checkpoint was trained with {name}={saved!r}, asked for is {value!r}: use another folder"
                )
        if state.facts["data"] != self._facts["data"] and not allow_data_change:
            raise CheckpointError(
                f"the checkpoint was trained on {_count(state.facts)} images, given are {_count(self._facts)}, or made "
                "otherwise: resume with the same data, or accept the change "
                "with --allow-data-change"
            )
        self.unet.load_state_dict(state.model)
        load_optimizer(self._optimizer, state.optimizer)
        self._ema.load_state_dict(state.ema_updates, state.ema)
        if state.scaler and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state.scaler)
        if self._rollouts is not None:
            rank, world = self._accelerator.process_index, self._accelerator.num_processes
            own = {name: value[rank::world].to(self._accelerator.device) for name, value in state.rollouts.items()}
            self._rollouts.load_state_dict(own)
        self.step = state.step
        self.seconds = float(state.facts["training_seconds"])
        if "started_from" in state.facts:
            self._facts["started_from"] = state.facts["started_from"]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[UNet]:
        """The network with the averaged weights, in evaluation mode, inside the `with` block."""
        unet = self.unet
        current = {name: tensor.detach().clone() for name, tensor in unet.named_parameters()}
        unet.load_state_dict(self._ema.average)
        try:
            yield unet.eval()
        finally:
            unet.load_state_dict(current)
            unet.train()


def _count(facts: dict[str, Any]) -> str:
    return str(facts["data"].get("images", "a stream of"))
