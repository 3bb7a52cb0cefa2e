"""Commands `id3pm train`, `export-bundle`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import click

from id3pm.attributes import FREE_SETS, fields_of
from id3pm.command_options import (
    BUNDLE,
    FOLDER,
    extract,
    given,
    option,
    takes,
)
from id3pm.config import PAPER_SR_SAMPLING, SamplerName, SamplingOptions, SpacingName
from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import Storage
from id3pm.training.data_commands import FacesOption
from id3pm.training.export import TaskVector, export_bundle
from id3pm.training.presets import DEMO_ATTRIBUTES, PRESETS, StageName, TrainConfig
from id3pm.training.session import SessionOptions, train

SAMPLER, SPACING = click.Choice(get_args(SamplerName)), click.Choice(get_args(SpacingName))
CONFIG_FIELDS = (
    "batch_size",
    "learning_rate",
    "precision",
    "identity_loss",
    "landmark_loss",
    "rollouts",
    "rollout_loss",
    "rollout_centring",
    "altered_vectors",
    "identity_jitter",
    "accumulation",
    "gradient_checkpointing",
    "channels_last",
    "fused_adamw",
    "foreach_ema",
    "seed",
)
"""Options of `id3pm train` that are fields of `TrainConfig`, by the same names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(FacesOption):
    """The options of `id3pm train`; those of `SessionOptions` and `CONFIG_FIELDS` have the same names there."""

    stage: StageName = option(type=click.Choice(["base", "sr"]), required=True)
    preset: str = option(type=click.Choice(["paper", "demo"]), default="paper")
    data: Path = option(type=FOLDER, required=True, help="From id3pm demo-dataset or embed-dataset.")
    out: Path = option(type=FOLDER, required=True, help="Folder of the run: checkpoint, history, pictures.")
    resume: bool = option(is_flag=True, help="Go on from the checkpoint in --out.")
    start_from: Path | None = option(
        type=BUNDLE, help="Bundle whose weights a new run starts from; else random weights."
    )
    allow_data_change: bool = option(is_flag=True, help="Resume although the data set is another one now.")
    identity_dim: int | None = option(type=click.IntRange(1), help="Length of the ID vectors; else the data set's.")
    attributes: bool = option(is_flag=True, help="Condition the base model on the data set's attributes, too.")
    steps: int | None = option(type=click.IntRange(1), help="Optimiser steps in all; else the preset's.")
    batch_size: int | None = option(
        type=click.IntRange(1), help="Images per step, over all processes; else the preset's."
    )
    learning_rate: float | None = option(type=click.FloatRange(0, min_open=True), help="Else the preset's.")
    precision: str | None = option(type=click.Choice(["no", "fp16", "bf16"]), help="Autocast; else the preset's.")
    identity_loss: float | None = option(
        type=click.FloatRange(0), help="Weight of the FR model's own gradient; else the preset's."
    )
    landmark_loss: float | None = option(
        type=click.FloatRange(0),
        help="With --attributes: weight of the landmarks' gradient; else the preset's.",
    )
    stream: int | None = option(
        type=click.IntRange(0), help="Train on generated people of this seed, none of them twice."
    )
    rollouts: int | None = option(type=click.IntRange(0), help="Images per step that the network itself is generating.")
    rollout_loss: float | None = option(
        type=click.FloatRange(0), help="Weight of their identity loss; else the preset's."
    )
    rollout_centring: float | None = option(
        type=click.FloatRange(0, 1),
        help="Share of that loss that compares vectors without their common mean.",
    )
    altered_vectors: float | None = option(
        type=click.FloatRange(0, 1), help="Share of the rollouts with ID vectors that no image has."
    )
    identity_jitter: float | None = option(type=click.FloatRange(0), help="How much the identity loss's crops vary.")
    accumulation: int | None = option(
        type=click.IntRange(1), help="Passes that a step's images are divided into: less memory, the same step."
    )
    gradient_checkpointing: bool | None = option(
        is_flag=True, default=None, help="Recompute activations in the backward pass: less memory, more time."
    )
    channels_last: bool | None = option(
        "--channels-last/--no-channels-last", default=None, help="Store the channels innermost; else the preset's: yes."
    )
    fused_adamw: bool | None = option(
        "--fused-adamw/--no-fused-adamw", default=None, help="AdamW in one kernel; else the preset's: yes."
    )
    foreach_ema: bool | None = option(
        "--foreach-ema/--no-foreach-ema",
        default=None,
        help="Average all weights in one call; else the preset's: yes.",
    )
    compile: bool = option(is_flag=True, help="Compile the network with torch.compile; for GPUs.")
    data_threads: int | None = option(
        type=click.IntRange(0, 16),
        help="Threads that make the next batches, one each, while a step computes; 0 makes them in between.  "
        "[default: 2 on a GPU, in pinned memory, 0 on a CPU]",
    )
    seed: int = option(type=click.IntRange(0), default=0)
    max_minutes: float | None = option(type=click.FloatRange(0), help="Stop with a checkpoint after this long.")
    save_minutes: float = option(type=click.FloatRange(0), default=10.0, help="Time between checkpoints and pictures.")
    threads: int | None = option(type=click.IntRange(1), help="CPU threads of each process.")
    cpu: bool = option(is_flag=True, help="Train on the CPU even where there is a GPU.")

    def config(self) -> TrainConfig:
        """The preset with what the data set and the options change.

        Raises:
            InvalidInputError: An option does not fit the stage or the data set.
        """
        config = PRESETS[self.preset, self.stage]
        if self.stage == "sr" and self.identity_dim is not None:
            raise InvalidInputError("--identity-dim belongs to --stage base: super-resolution is unconditional")
        if self.stage == "base":
            known = self.identity_dim or shards.describe(self.data).get("identity_dim") or config.unet.identity_dim
            config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, identity_dim=known))
        if self.attributes:
            config = self._with_attributes(config)
        return dataclasses.replace(config, **given(self, *CONFIG_FIELDS, steps="total_steps"))

    def _with_attributes(self, config: TrainConfig) -> TrainConfig:
        attribute_set = shards.describe(self.data).get("attribute_set")
        if self.stage == "sr" or attribute_set is None:
            raise InvalidInputError(
                "--attributes is for --stage base and a data set made with --attribute-set or measured"
            )
        unet = dataclasses.replace(config.unet, attribute_dim=len(fields_of(attribute_set)))
        extra = DEMO_ATTRIBUTES if self.preset == "demo" and attribute_set in FREE_SETS else {}
        return dataclasses.replace(config, unet=unet, attribute_set=attribute_set, **extra)


@click.command("train")
@takes(TrainOptions)
def train_command(options: TrainOptions) -> None:
    """Train the 64 px model or the super-resolution model.

    For several GPUs, hosts or CPU processes start it with a launcher: `torchrun --nproc_per_node 2 -m id3pm train ...`,
    or `accelerate launch`. SIGTERM and Ctrl-C stop it with a checkpoint.
    """
    steps = train(options.config(), extract(options, SessionOptions))
    click.echo(f"{steps} steps done: {options.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportBundleOptions:
    """The options of `id3pm export-bundle`."""

    base_run: Path = option("--base", type=BUNDLE, required=True, help="Folder of the base run, or of a bundle.")
    sr_run: Path = option(
        "--sr", type=BUNDLE, required=True, help="Folder of the super-resolution run, or of a bundle."
    )
    blend: Path | None = option(type=BUNDLE, help="Bundle that the base run started from: its weights stay in part.")
    blend_share: float = option(type=click.FloatRange(0, 1), default=0.5, help="Of the run's weights, with --blend.")
    data_mean: Path | None = option(
        type=FOLDER, help="Data set: the base stage begins at the mean colour of its images [as the run did]."
    )
    task: Path | None = option(
        type=BUNDLE, help="Bundle trained from --task-start: what its base network learned is added (task arithmetic)."
    )
    task_start: Path | None = option(type=BUNDLE, help="Bundle that the one in --task was trained from.")
    task_share: float = option(
        type=click.FloatRange(0, 2), default=1.0, help="How much of what was learned is added, with --task."
    )
    out: Path = option(type=FOLDER, required=True, help="The bundle's folder.")
    name: str | None = option(help="Name of the bundle [as the folder in --out].")
    licence: str = option(required=True, help="Licence of the weights.")
    storage: Storage = option(type=click.Choice(["fp16", "fp32"]), default="fp16")
    steps: int = option(type=click.IntRange(1, 1000), default=250, help="Default steps of the base stage.")
    sr_steps: int = option(type=click.IntRange(1, 1000), default=250, help="Default steps of super-resolution.")
    sampler: SamplerName = option(type=SAMPLER, default="ddpm", help="Default sampler of the base stage.")
    spacing: SpacingName = option(
        type=SPACING, default="uniform", help="Default spacing of the base stage's time steps."
    )
    eta: float = option(type=click.FloatRange(0, 1), default=0.0, help="Default eta of the base stage; for ddim.")
    sr_sampler: SamplerName = option(type=SAMPLER, default="ddpm", help="Default sampler of super-resolution.")
    sr_eta: float = option(type=click.FloatRange(0, 1), default=0.0, help="Default eta of super-resolution; for ddim.")
    sr_consistency: float = option(type=click.FloatRange(0, 1), default=0.0, help="Default of super-resolution.")

    @property
    def task_vector(self) -> TaskVector | None:
        """What is added, if anything."""
        if self.task is None and self.task_start is None:
            return None
        if self.task is None or self.task_start is None:
            raise click.UsageError("--task and --task-start go together: the difference of the two is added")
        return TaskVector(self.task, self.task_start, self.task_share)

    @property
    def sr_sampling(self) -> SamplingOptions:
        """Default options of the super-resolution stage."""
        return dataclasses.replace(
            PAPER_SR_SAMPLING,
            sampler=self.sr_sampler,
            steps=self.sr_steps,
            eta=self.sr_eta,
            consistency=self.sr_consistency,
        )


@click.command("export-bundle")
@takes(ExportBundleOptions)
def export_bundle_command(options: ExportBundleOptions) -> None:
    """Write the averaged weights of two runs as a bundle with a training card.

    The runs may still be going on: their newest checkpoints are taken.
    """
    bundle = export_bundle(
        options.base_run,
        options.sr_run,
        options.out,
        name=options.name or options.out.resolve().name,
        licence=options.licence,
        sampling=extract(options, SamplingOptions),
        sr_sampling=options.sr_sampling,
        storage=options.storage,
        blend=options.blend,
        blend_share=options.blend_share,
        data_mean=options.data_mean,
        task=options.task_vector,
    )
    click.echo(f"{bundle.name}: {options.out}")
