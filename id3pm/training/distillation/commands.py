"""Commands `id3pm distill` and `id3pm export-student`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import torch

from id3pm.command_options import BUNDLE, FOLDER, REPOSITORY, extract, given, option, takes
from id3pm.formats.bundle import Storage, read_bundle, weights_hash
from id3pm.training.data_commands import FacesOption
from id3pm.training.distillation.config import DistillConfig, student_network
from id3pm.training.distillation.estimate import estimate
from id3pm.training.distillation.export import export_student
from id3pm.training.distillation.options import DistillOptions
from id3pm.training.distillation.session import distill
from id3pm.training.presets import StageName

CONFIG_FIELDS = (
    "pairs",
    "teacher_steps",
    "target_steps",
    "batch_size",
    "learning_rate",
    "identity_loss",
    "feature_loss",
    "critic",
    "own_share",
    "seed",
    "gradient_checkpointing",
    "precision",
)
"""Options of `id3pm distill` that are fields of `DistillConfig`, by the same names."""
SR_TRAIN_SIZE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillCommandOptions(FacesOption):
    """The options of `id3pm distill`; those of `DistillOptions` and `CONFIG_FIELDS` have the same names there."""

    teacher: Path = option(type=BUNDLE, required=True, help="The bundle that the student learns from.")
    stage: StageName = option(type=click.Choice(["base", "sr"]), required=True)
    steps: str = option(
        type=click.Choice(["1", "2", "4"]), default="2", help="Evaluations of the student for one image."
    )
    out: Path = option(type=FOLDER, required=True, help="Folder of the run: pairs, checkpoint, history, pictures.")
    data: Path | None = option(type=FOLDER, help="Data set whose ID vectors (sr: images) the teacher is given.")
    stream: int | None = option(type=click.IntRange(0), help="Generated people of this seed instead of --data.")
    repository: Path = option(
        type=REPOSITORY, default=Path("triton_repo"), help="Where an engine of the teacher's makes its results faster."
    )
    estimate: bool = option(is_flag=True, help="Print what the run will take on this machine, and end.")
    resume: bool = option(is_flag=True, help="Go on from the checkpoint in --out.")
    start_from: Path | None = option(
        type=BUNDLE,
        help="A student whose weights a new run starts from, such as that of the same teacher before it was trained "
        "further; else the teacher's weights.",
    )
    guidance_from: float = option(type=click.FloatRange(1, 10), default=1.0, help="Lowest guidance scale taught.")
    guidance_to: float = option(type=click.FloatRange(1, 10), default=3.0, help="Highest guidance scale taught.")
    train_size: int | None = option(
        type=click.IntRange(8), help="Side of the images in training; for sr a crop, by default of 64 px."
    )
    pairs: int | None = option(type=click.IntRange(1), help="Results of the teacher that are made ahead.")
    teacher_steps: int | None = option(type=click.IntRange(1), help="Steps in which the teacher makes an image.")
    target_steps: int | None = option(
        type=click.IntRange(1), help="Steps in which the teacher finishes the noisy images that the last step is given."
    )
    optimiser_steps: int | None = option(type=click.IntRange(1), help="Optimiser steps in all.")
    batch_size: int | None = option(type=click.IntRange(1), help="Images per optimiser step, over all processes.")
    learning_rate: float | None = option(type=click.FloatRange(0, min_open=True))
    identity_loss: float | None = option(
        type=click.FloatRange(0), help="Weight of the FR model's gradient; 0 needs no FR model.  [default: base 0.02]"
    )
    feature_loss: float | None = option(
        type=click.FloatRange(0),
        help="For sr: weight of the distance in the features of the teacher's encoder.  [default: 1]",
    )
    critic: float | None = option(
        type=click.FloatRange(0), help="Share of the critic's gradient; 0 trains none: blurred, but steady."
    )
    own_share: float | None = option(
        type=click.FloatRange(0, 1), help="Share of later steps that go on from the student's own images."
    )
    precision: str | None = option(type=click.Choice(["no", "bf16"]), help="Autocast.  [default: no]")
    gradient_checkpointing: bool | None = option(
        is_flag=True, default=None, help="Recompute activations in the backward pass: less memory, more time."
    )
    seed: int | None = option(type=click.IntRange(0))
    max_minutes: float | None = option(
        type=click.FloatRange(0), help="Stop with a checkpoint after this long; the teacher's results do not count."
    )
    save_minutes: float = option(type=click.FloatRange(0), default=10.0, help="Time between checkpoints and pictures.")
    threads: int | None = option(type=click.IntRange(1), help="CPU threads of each process.")
    cpu: bool = option(is_flag=True, help="Train on the CPU even where there is a GPU.")

    def config(self) -> DistillConfig:
        """The run.

        Raises:
            BundleError: The teacher cannot be read.
            ConfigError: It is a student, or a value does not fit.
        """
        bundle = read_bundle(self.teacher)
        scales = (self.guidance_from, self.guidance_to)
        unet, diffusion = student_network(bundle, self.stage, int(self.steps), scales)
        size = unet.image_size if self.stage == "base" else min(SR_TRAIN_SIZE, unet.image_size)
        config = DistillConfig(
            teacher=bundle.name,
            teacher_weights_sha256=weights_hash(self.teacher, self.stage),
            unet=unet,
            diffusion=diffusion,
            train_size=self.train_size or size,
            identity_loss=DistillConfig.identity_loss if unet.identity_dim is not None else 0.0,
            feature_loss=1.0 if self.stage == "sr" else 0.0,
        )
        return dataclasses.replace(config, **given(self, *CONFIG_FIELDS, optimiser_steps="total_steps"))


@click.command("distill")
@takes(DistillCommandOptions)
def distill_command(options: DistillCommandOptions) -> None:
    """Train a student: the same network, which makes an image in 1, 2 or 4 evaluations, guidance included.

    First the teacher makes images of given ID vectors and noise; then the student learns to make them at once. Both
    go on where they were interrupted with --resume. For several GPUs or processes: `torchrun --nproc_per_node 2 -m
    id3pm distill ...`. Then: id3pm export-student.
    """
    config = options.config()
    if options.estimate:
        device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
        click.echo("\n".join(estimate(config, device).lines()))
        return
    steps = distill(config, extract(options, DistillOptions))
    click.echo(f"{steps} steps done: {options.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportStudentOptions:
    """The options of `id3pm export-student`."""

    teacher: Path = option(type=BUNDLE, required=True, help="The teacher's bundle.")
    base: Path | None = option(
        type=FOLDER,
        help="Distillation run of the base stage, or an earlier student's bundle; else the teacher's stage.",
    )
    sr: Path | None = option(type=FOLDER, help="The same for super-resolution.")
    out: Path = option(type=FOLDER, required=True, help="The student's bundle.")
    name: str | None = option(help="Name of the bundle [as the folder in --out].")
    storage: Storage = option(type=click.Choice(["fp16", "fp32"]), default="fp16")


@click.command("export-student")
@takes(ExportStudentOptions)
def export_student_command(options: ExportStudentOptions) -> None:
    """Write the averaged weights of distillation runs as a bundle, whose card names the teacher."""
    name = options.name or options.out.resolve().name
    bundle = export_student(options.teacher, options.base, options.sr, options.out, name=name, storage=options.storage)
    click.echo(f"{bundle.name}: {options.out}")
