"""`id3pm baseline train`: NbNet and Vec2Face on a data set of this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click
import torch
from torch import nn

from id3pm.command_options import EXISTING_FILE, FOLDER, option, takes
from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines import nbnet_training as nbnet_rules
from id3pm.evaluation.baselines.nbnet import BlockKind, NbNet
from id3pm.evaluation.baselines.nbnet_training import NbNetTraining
from id3pm.evaluation.baselines.trainer import Pairs, Precision, Run, Trainable, train
from id3pm.evaluation.baselines.vec2face import Discriminator, Generator, Student
from id3pm.evaluation.baselines.vec2face_training import GeneratorTraining, StudentTraining
from id3pm.evaluation.baselines.vgg import Vgg19
from id3pm.evaluation.baselines.weights import load_facts, load_weights, save_weights
from id3pm.evaluation.progress import progress_bar

BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of both methods."""

    data: Path = option(type=FOLDER, default=Path("data/demo"), help="Data set; its held-out people are left out.")
    batch_size: int = option(type=click.IntRange(2), default=BATCH, help="Pictures of a step.")
    save_every: int = option(type=click.IntRange(1), default=100, help="Steps between checkpoints.")
    resume: bool = option(is_flag=True, help="Go on from the checkpoint in --out.")
    threads: int | None = option(type=click.IntRange(1), help="CPU threads; all cores if not given.")
    precision: Precision = option(
        type=click.Choice(get_args(Precision)),
        default="fp32",
        help="bf16: products of a step in half precision, quicker on CPUs that have it (AMX, AVX512_BF16).",
    )

    def run(self, folder: Path, steps: int, pairs: Pairs, resume: bool, **facts: Any) -> Run:
        """The run of one network."""
        description = {"data": pairs.facts, "batch size": self.batch_size, "precision": self.precision, **facts}
        return Run(
            folder=folder,
            steps=steps,
            resume=resume,
            save_every=self.save_every,
            precision=self.precision,
            description=description,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NbNetOptions(TrainingOptions):
    """The options of `id3pm baseline train nbnet`."""

    out: Path = option(type=FOLDER, default=Path("runs/nbnet"), help="Folder of the run; gets nbnet.safetensors.")
    steps: int = option(type=click.IntRange(1), default=15_000, help="Optimiser steps in all.")
    blocks: BlockKind = option(type=click.Choice(get_args(BlockKind)), default="A", help="Kind of NbBlock.")
    channels: int = option(type=click.IntRange(1), default=256, help="Of the first block.")
    learning_rate: float = option(
        type=click.FloatRange(0, min_open=True),
        default=nbnet_rules.LEARNING_RATE,
        help=f"At the start; x {nbnet_rules.DECAY} every {nbnet_rules.DECAY_STEPS} steps.",
    )
    vgg: Path | None = option(
        type=EXISTING_FILE, help="vgg19-dcbb9e9d.pth: perceptual loss (relu3_2) instead of pixel loss."
    )
    start: Path | None = option(type=EXISTING_FILE, help="Weights to start from, such as those of the pixel loss.")


@click.group("train")
def train_group() -> None:
    """Train a baseline that is a network; resumable."""


@train_group.command("nbnet")
@takes(NbNetOptions)
def nbnet_command(options: NbNetOptions) -> None:
    """NbNet (Mai et al. 2018): from the ID vector to the picture, by deconvolution."""
    _prepare(options)
    vgg = None if options.vgg is None else Vgg19(options.vgg)
    pairs = Pairs(options.data, options.batch_size, 64)
    arguments = {"identity_dim": pairs.identity_dim, "blocks": options.blocks, "channels": options.channels}
    network = NbNet(pairs.identity_dim, options.blocks, options.channels)
    if options.start is not None:
        load_facts(options.start, "nbnet", pairs.id_vector_model)
        load_weights(options.start, network)
    rules = {
        "network": arguments,
        "loss": "pixel" if vgg is None else "perceptual",
        "learning rate": options.learning_rate,
        "start": None if options.start is None else options.start.name,
    }
    run = options.run(options.out, options.steps, pairs, options.resume, method="nbnet", **rules)
    seconds = _train("NbNet", NbNetTraining(network, pairs, options.learning_rate, vgg), run)
    _save(options.out / "nbnet.safetensors", network, pairs, run, seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vec2FaceOptions(TrainingOptions):
    """The options of `id3pm baseline train vec2face`."""

    out: Path = option(type=FOLDER, default=Path("runs/vec2face"), help="Folder; gets vec2face.safetensors.")
    student_steps: int = option(type=click.IntRange(1), default=10_000, help="Steps of the distillation.")
    steps: int = option(type=click.IntRange(1), default=50_000, help="Steps of the generator.")
    labelled: Path | None = option(
        type=FOLDER, help="Several pictures of each person (id3pm baseline labelled), for the generator; else --data."
    )


@train_group.command("vec2face")
@takes(Vec2FaceOptions)
def vec2face_command(options: Vec2FaceOptions) -> None:
    """Vec2Face (Duong et al. 2020), after its published description: a student of the FR model, then the generator."""
    _prepare(options)
    pairs = Pairs(options.data, options.batch_size, 64)
    labelled = pairs if options.labelled is None else Pairs(options.labelled, options.batch_size, 64)
    if labelled.id_vector_model != pairs.id_vector_model:
        raise InvalidInputError(
            f"{options.labelled} has ID vectors of {labelled.id_vector_model}, {options.data} those of "
            f"{pairs.id_vector_model}: the student of one FR model says nothing of another one's vectors"
        )
    dim = pairs.identity_dim
    student, generator = Student(dim), Generator(dim)
    # The student is done where its checkpoint is of the last step; then the generator's run goes on.
    folders = {name: options.out / name for name in ("student", "generator")}
    run = options.run(
        folders["student"],
        options.student_steps,
        pairs,
        options.resume,
        method="vec2face",
        network="student",
        rate_falls_over=options.student_steps,
    )
    seconds = _train("student", StudentTraining(student, pairs, options.student_steps), run)
    resume = options.resume and (folders["generator"] / "checkpoint.pt").exists()
    rules = {"network": {"identity_dim": dim}, "student steps": options.student_steps}
    run = options.run(folders["generator"], options.steps, labelled, resume, method="vec2face", **rules)
    seconds += _train("generator", GeneratorTraining(generator, Discriminator(), student, labelled), run)
    _save(options.out / "vec2face.safetensors", generator, labelled, run, seconds)


def _prepare(options: TrainingOptions) -> None:
    torch.manual_seed(0)  # weights at the start
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def _train(name: str, trained: Trainable, run: Run) -> float:
    with progress_bar() as bar:
        task = bar.add_task(name, total=run.steps)

        def on_step(losses: Mapping[str, float]) -> None:
            told = ", ".join(f"{loss} {value:.3f}" for loss, value in losses.items())
            bar.update(task, advance=1, description=f"{name}: {told}")

        return train(trained, run, on_step, lambda at: bar.update(task, completed=at["step"]))


def _save(file: Path, network: nn.Module, pairs: Pairs, run: Run, seconds: float) -> None:
    trained = {"steps": run.steps, "seconds": round(seconds)}
    vectors = {"id_vector_model": pairs.id_vector_model, "identity_dim": pairs.identity_dim}
    save_weights(file, network, {**run.description, **vectors, **trained})
    click.echo(f"{file}: {run.steps} steps, {file.stat().st_size / 1e6:.1f} MB")
