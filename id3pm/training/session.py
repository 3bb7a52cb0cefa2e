"""One session of training: data, progress, checkpoints and pictures every few minutes, a clean stop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from id3pm.config import DiffusionConfig
from id3pm.errors import InvalidInputError
from id3pm.face.stage import FaceStage
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import read_bundle
from id3pm.training import checkpoint
from id3pm.training.ahead import BatchesBeside
from id3pm.training.batch import Batches, SharedBatches, shares_of
from id3pm.training.data import make_batches
from id3pm.training.demo_data import DemoJob
from id3pm.training.history import HISTORY_FILE, cut_history, mean_losses
from id3pm.training.identity_loss import IdentityLoss
from id3pm.training.landmark_loss import LandmarkLoss
from id3pm.training.loop import Trainer
from id3pm.training.presets import TrainConfig
from id3pm.training.preview import RunPictures
from id3pm.training.rollouts import Rollouts
from id3pm.training.stepped_run import Losses
from id3pm.training.stop_signal import StopSignal
from id3pm.training.stream import stream_batches

GPU_DATA_THREADS = 2
"""Of each process on a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Options of one session; of these only `start_from` changes the result of training.

    Attributes:
        data: Folder of the training set.
        out: Folder of the run.
        resume: Go on from the run's checkpoint.
        start_from: A bundle whose weights a new run starts from, instead of random ones.
        allow_data_change: Resume although the data set has grown since.
        max_minutes: Stop with a checkpoint after this long; `None` for no limit.
        save_minutes: Time between checkpoints (with pictures).
        log_every: Steps per line of the history.
        preview_faces: Held-out faces in the sample grid.
        threads: CPU threads of each process; `None` for PyTorch's choice.
        cpu: Train on the CPU even where there is a GPU.
        faces: Face engine folder; for the identity loss and the stream.
        stream: Train on generated people that never repeat, instead of the training half of `data`: the seed of
            `id3pm.training.stream.GeneratedPeople`. `data` then gives the held-out faces of the pictures.
        compile: Compile the network with `torch.compile`; minutes at the start.
        data_threads: Threads that make the next batches while a step computes; 0 makes each when its step begins.
            `None`: `GPU_DATA_THREADS` on a GPU, 0 on a CPU, which the network needs itself.
    """

    data: Path
    out: Path
    resume: bool = False
    start_from: Path | None = None
    allow_data_change: bool = False
    max_minutes: float | None = None
    save_minutes: float = 10.0
    log_every: int = 20
    preview_faces: int = 8
    threads: int | None = None
    cpu: bool = False
    faces: Path = Path("triton_repo/face_embedding/1/engine")
    stream: int | None = None
    compile: bool = False
    data_threads: int | None = None


def train(config: TrainConfig, options: SessionOptions) -> int:
    """Trains until `total_steps`, the time limit, or SIGTERM / SIGINT; always ends with a checkpoint.

    Returns:
        Optimiser steps done in the run so far.

    Raises:
        InvalidInputError: The data do not fit, or both `resume` and `start_from` are given.
        BundleError, ConfigError: `start_from` cannot be read, or is another network.
        CheckpointError: `resume`, and the run's checkpoint is missing or another run's; or no `resume`, and the folder
            holds a run already.
    """
    if options.resume and options.start_from is not None:
        raise InvalidInputError("--resume goes on from the run's own checkpoint: leave --start-from out")
    if not options.resume:
        checkpoint.require_none(options.out)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    accelerator = Accelerator(
        cpu=options.cpu, mixed_precision=config.precision, dynamo_backend="inductor" if options.compile else None
    )
    options.out.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(config, diffusion=_process(config, options))
    data, batches = _data(config, options)
    facts = {"data": data, "hardware": hardware(accelerator)}
    judge = identity_loss(options.faces, options.data) if config.identity_loss else None
    # Faces are tilted only if their roll is given; -1, which leaves it free, is next to the value for furthest left.
    landmarks = LandmarkLoss(resting={"roll": 0.0} if config.tilt else None) if config.landmark_loss else None
    rollouts = None
    if config.rollouts and judge is not None:
        stage = FaceStage.load(options.faces, threads=1)
        rollouts = Rollouts(
            judge, stage, config.diffusion, learn_sigma=config.unet.learn_sigma, centring=config.rollout_centring
        )
    with _beside(batches, config, options, accelerator) as ahead:
        trainer = Trainer(config, ahead, options.out, facts, accelerator, judge, landmarks, rollouts)
        if options.resume:
            trainer.resume(allow_data_change=options.allow_data_change)
        elif options.start_from is not None:
            trainer.start_from(options.start_from)
        show = RunPictures(trainer, options.data, options.out, options.preview_faces)
        deadline = float("inf") if options.max_minutes is None else time.monotonic() + 60 * options.max_minutes
        with StopSignal() as stopped:
            _steps(trainer, options, accelerator, show, lambda: stopped() or time.monotonic() >= deadline)
    return trainer.step


def _data(config: TrainConfig, options: SessionOptions) -> tuple[dict[str, Any], Batches]:
    """The facts and the batches of a run.

    Raises:
        InvalidInputError: The run or the data set does not fit.
    """
    if options.stream is not None:
        return _stream(config, options, options.stream)
    arrays = shards.load_mapped(options.data, "train")
    return _data_facts(options.data, arrays), make_batches(config, arrays)


@contextlib.contextmanager
def _beside(
    batches: Batches, config: TrainConfig, options: SessionOptions, accelerator: Accelerator
) -> Iterator[SharedBatches]:
    """The batches, made by threads where the run has some."""
    gpu = accelerator.device.type == "cuda"
    threads = options.data_threads
    if threads is None:
        threads = GPU_DATA_THREADS if gpu else 0
    if threads == 0:
        yield batches
        return
    if options.stream is not None:
        threads = 1  # a process of its own makes them, in order; a thread receives and pins them
    made = BatchesBeside(
        batches, config.total_steps, threads, shares=shares_of(config, accelerator), device=accelerator.device
    )
    with contextlib.closing(made):
        yield made


def _process(config: TrainConfig, options: SessionOptions) -> DiffusionConfig:
    """The run's process, with the mean colour of what it goes on from: rollouts begin as a sampler does."""
    if options.resume:
        before = checkpoint.load(options.out).config.diffusion
    elif options.start_from is not None:
        bundle = read_bundle(options.start_from)
        before = bundle.base_diffusion if config.stage == "base" else bundle.sr_diffusion
    else:
        return config.diffusion
    return dataclasses.replace(config.diffusion, data_mean=before.data_mean)


def _stream(config: TrainConfig, options: SessionOptions, seed: int) -> tuple[dict[str, Any], Batches]:
    """The facts and the batches of a stream of generated people.

    Raises:
        InvalidInputError: The run or the data set does not fit.
    """
    description = DemoJob(folder=options.data, faces=options.faces, seed=seed).description()
    held_out = shards.describe(options.data)
    if config.stage != "base" or config.unet.attribute_dim is not None:
        raise InvalidInputError("--stream is for --stage base without --attributes")
    if config.unet.identity_dim != description["identity_dim"]:
        raise InvalidInputError(
            f"the stream's ID vectors have {description['identity_dim']} numbers, this network takes "
            f"{config.unet.identity_dim}"
        )
    if (held_out.get("kind"), held_out.get("seed")) == ("demo", seed):
        raise InvalidInputError(f"--stream {seed}: {options.data} has the people of this seed, choose another")
    facts = {"description": {**description, "kind": "stream"}}
    return facts, stream_batches(seed, options.faces, config)


def identity_loss(faces: Path, data: Path) -> IdentityLoss:
    """The identity loss of a data set.

    Raises:
        EngineError: The face engine folder is not usable.
        InvalidInputError: The data set's ID vectors are of another FR model.
    """
    judge, needed = IdentityLoss(faces), shards.describe(data).get("id_vector_model")
    if judge.id_vector_model != needed:
        raise InvalidInputError(
            f"the ID vectors of {data} are of {needed!r}, the face models in {faces} are {judge.id_vector_model!r}: "
            "the identity loss needs the same"
        )
    return judge


def _steps(
    trainer: Trainer,
    options: SessionOptions,
    accelerator: Accelerator,
    show: RunPictures,
    should_stop: Callable[[], bool],
) -> None:
    batch_size = trainer.config.batch_size
    recent: list[Losses] = []
    saved_at = time.monotonic()
    history = options.out / HISTORY_FILE
    if accelerator.is_main_process:
        cut_history(history, trainer.step)
    with tqdm(
        total=trainer.config.total_steps,
        initial=trainer.step,
        unit="step",
        disable=not accelerator.is_main_process,
        mininterval=1.0,
        smoothing=0.1,
    ) as bar:
        for step, losses in trainer.run(should_stop):
            recent.append(losses)
            bar.set_postfix({name: f"{value:.4f}" for name, value in mean_losses(recent).items()}, refresh=False)
            bar.update()
            if step % options.log_every == 0:
                means = mean_losses(recent)
                recent.clear()
                if accelerator.is_main_process:
                    line = {"step": step, "images": step * batch_size, "seconds": round(trainer.seconds, 1), **means}
                    with history.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
            # Clocks differ between processes, and a checkpoint waits for all of them: they agree when it is time.
            if step % options.log_every == 0 and trainer.agree(time.monotonic() - saved_at > 60 * options.save_minutes):
                trainer.save()
                show()
                saved_at = time.monotonic()
    trainer.save()
    show()


def _data_facts(folder: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": shards.describe(folder), "images": len(arrays["images"])}


def hardware(accelerator: Accelerator) -> str:
    """Processes and device of a run, in words, for its training card."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return f"{accelerator.num_processes} process(es), {name}, {platform.machine()}, PyTorch {torch.__version__}"
