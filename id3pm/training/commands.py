"""The command line of this room: `id3pm demo-dataset`, `embed-dataset`, `measure-dataset`, `train`, `export-bundle`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import click

from id3pm.attributes import FREE_SETS, fields_of
from id3pm.config import PAPER_SR_SAMPLING, SamplerName, SamplingOptions, SpacingName
from id3pm.errors import InvalidInputError
from id3pm.face.framing import Crop
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import Storage
from id3pm.training.demo_data import DemoJob, make_demo_dataset
from id3pm.training.embedding import FaceFilter
from id3pm.training.export import export_bundle
from id3pm.training.labels import AttributeFiles, Split
from id3pm.training.measured import measure_dataset
from id3pm.training.picture_data import SKIPPED_FILE, PictureJob, embed_pictures
from id3pm.training.presets import DEMO_ATTRIBUTES, PRESETS
from id3pm.training.session import SessionOptions, train
from id3pm.training.sources import open_source

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
EXISTING_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
SAMPLER, SPACING = click.Choice(get_args(SamplerName)), click.Choice(get_args(SpacingName))
FACES = Path("triton_repo/face_embedding/1/engine")
faces_option = click.option("--faces", type=FOLDER, default=FACES, help="Face engine folder (id3pm build-faces).")


@click.command("demo-dataset")
@click.option("--out", type=FOLDER, default=Path("data/demo"))
@click.option("--count", type=click.IntRange(1), default=60_000, help="Number of faces; an existing set grows.")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--workers", type=click.IntRange(1), default=2, help="Processes, one core each.")
@click.option("--held-out-only", is_flag=True, help="Make the held-out people alone, for id3pm train --stream.")
@faces_option
def demo_dataset_command(out: Path, count: int, seed: int, workers: int, held_out_only: bool, faces: Path) -> None:
    """Make the embedded training set: generated faces, filtered, with ID vectors.

    Deterministic by seed, and resumable: what is complete is kept.
    """
    total = make_demo_dataset(DemoJob(folder=out, faces=faces, seed=seed, held_out_only=held_out_only), count, workers)
    click.echo(f"{total} faces in {out}")


@click.command("embed-dataset")
@click.argument("pictures", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=FOLDER, required=True)
@click.option("--size", type=click.IntRange(16, 1024), default=64, help="Side of the images in pixels.")
@click.option(
    "--crop",
    type=click.Choice(get_args(Crop)),
    default="face",
    help="The face upright at one place, or the whole (middle square of the) picture where it is aligned already.",
)
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.6, help="Least score of the detector.")
@click.option("--image-column", help="Of parquet tables; else found by type and name.")
@click.option("--ffhq-json", type=FILE, help="ffhq-dataset-v2.json: its category decides what is held out.")
@click.option(
    "--attribute-set",
    type=click.IntRange(1, 3),
    help="Store this set's attributes from the FFHQ features JSON beside each picture.",
)
@click.option("--attributes", type=EXISTING_FOLDER, help="Folder of those JSON files, if they are not beside.")
@faces_option
def embed_dataset_command(
    pictures: Path,
    out: Path,
    size: int,
    crop: Crop,
    min_score: float,
    image_column: str | None,
    ffhq_json: Path | None,
    attribute_set: int | None,
    attributes: Path | None,
    faces: Path,
) -> None:
    """Turn pictures into training images with ID vectors.

    PICTURES is a folder of pictures, of webdataset .tar files or of .parquet files (or one such file); folders are
    searched with their subfolders. Resumable; pictures that cannot be used are skipped and listed.
    """
    if attributes is not None and attribute_set is None:
        raise InvalidInputError("--attributes needs --attribute-set: 1, 2 or 3")
    job = PictureJob(
        source=open_source(pictures, image_column),
        folder=out,
        faces=faces,
        image_size=size,
        crop=crop,
        face_filter=FaceFilter(min_score=min_score),
        split=None if ffhq_json is None else Split(ffhq_json),
        attributes=None if attribute_set is None else AttributeFiles(attribute_set, attributes),
    )
    report = embed_pictures(job)
    click.echo(f"{report.kept} faces in {out}, {report.skipped} pictures skipped")
    if report.skipped:
        click.echo(f"reasons: {out / SKIPPED_FILE}")


@click.command("measure-dataset")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="From id3pm demo-dataset or embed-dataset.")
@click.option("--workers", type=click.IntRange(1), default=2, help="Processes, one core each.")
def measure_dataset_command(data: Path, workers: int) -> None:
    """Measure head pose and expression of a data set's faces: attribute set landmarks.

    Resumable; where the set has grown, the new faces are measured.
    """
    measured, unseen = measure_dataset(data, workers)
    click.echo(f"{measured} faces measured in {data}, {unseen} of them without attributes: no clear face")


@click.command("train")
@click.option("--stage", type=click.Choice(["base", "sr"]), required=True)
@click.option("--preset", type=click.Choice(["paper", "demo"]), default="paper")
@click.option("--data", type=FOLDER, required=True, help="From id3pm demo-dataset or embed-dataset.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run: checkpoint, history, pictures.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--start-from", type=FOLDER, help="Bundle whose weights a new run starts from; else random weights.")
@click.option("--allow-data-change", is_flag=True, help="Resume although the data set is another one now.")
@click.option("--identity-dim", type=click.IntRange(1), help="Length of the ID vectors; else the data set's.")
@click.option("--attributes", is_flag=True, help="Condition the base model on the data set's attributes, too.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all; else the preset's.")
@click.option("--batch-size", type=click.IntRange(1), help="Images per step, over all processes; else the preset's.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Else the preset's.")
@click.option("--precision", type=click.Choice(["no", "fp16", "bf16"]), help="Autocast; else the preset's.")
@click.option(
    "--identity-loss", type=click.FloatRange(0), help="Weight of the FR model's own gradient; else the preset's."
)
@click.option(
    "--landmark-loss",
    type=click.FloatRange(0),
    help="With --attributes: weight of the landmarks' gradient; else the preset's.",
)
@click.option("--stream", type=click.IntRange(0), help="Train on generated people of this seed, none of them twice.")
@click.option("--rollouts", type=click.IntRange(0), help="Images per step that the network itself is generating.")
@click.option("--rollout-loss", type=click.FloatRange(0), help="Weight of their identity loss; else the preset's.")
@click.option(
    "--rollout-centring",
    type=click.FloatRange(0, 1),
    help="Share of that loss that compares vectors without their common mean.",
)
@click.option(
    "--altered-vectors", type=click.FloatRange(0, 1), help="Share of the rollouts with ID vectors that no image has."
)
@click.option("--identity-jitter", type=click.FloatRange(0), help="How much the identity loss's crops vary.")
@faces_option
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--max-minutes", type=click.FloatRange(0), help="Stop with a checkpoint after this long.")
@click.option("--save-minutes", type=click.FloatRange(0), default=10.0, help="Time between checkpoints and pictures.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each process.")
@click.option("--cpu", is_flag=True, help="Train on the CPU even where there is a GPU.")
def train_command(
    stage: str,
    preset: str,
    data: Path,
    out: Path,
    resume: bool,
    start_from: Path | None,
    allow_data_change: bool,
    identity_dim: int | None,
    attributes: bool,
    steps: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    precision: str | None,
    identity_loss: float | None,
    landmark_loss: float | None,
    stream: int | None,
    rollouts: int | None,
    rollout_loss: float | None,
    rollout_centring: float | None,
    altered_vectors: float | None,
    identity_jitter: float | None,
    faces: Path,
    seed: int,
    max_minutes: float | None,
    save_minutes: float,
    threads: int | None,
    cpu: bool,
) -> None:
    """Train the 64 px model or the super-resolution model.

    For several GPUs, hosts or CPU processes start it with a launcher: `torchrun --nproc_per_node 2 -m id3pm train ...`,
    or `accelerate launch`. SIGTERM and Ctrl-C stop it with a checkpoint.
    """
    config = PRESETS[preset, stage]
    if stage == "sr" and identity_dim is not None:
        raise InvalidInputError("--identity-dim belongs to --stage base: super-resolution is unconditional")
    if stage == "base":
        identity_dim = identity_dim or shards.describe(data).get("identity_dim") or config.unet.identity_dim
        config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, identity_dim=identity_dim))
    if attributes:
        attribute_set = shards.describe(data).get("attribute_set")
        if stage == "sr" or attribute_set is None:
            raise InvalidInputError(
                "--attributes is for --stage base and a data set made with --attribute-set or measured"
            )
        unet = dataclasses.replace(config.unet, attribute_dim=len(fields_of(attribute_set)))
        extra = DEMO_ATTRIBUTES if preset == "demo" and attribute_set in FREE_SETS else {}
        config = dataclasses.replace(config, unet=unet, attribute_set=attribute_set, **extra)
    given = {
        "total_steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "identity_loss": identity_loss,
        "landmark_loss": landmark_loss,
        "rollouts": rollouts,
        "rollout_loss": rollout_loss,
        "rollout_centring": rollout_centring,
        "altered_vectors": altered_vectors,
        "identity_jitter": identity_jitter,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = dataclasses.replace(config, seed=seed, **changes)
    options = SessionOptions(
        data=data,
        out=out,
        resume=resume,
        start_from=start_from,
        allow_data_change=allow_data_change,
        max_minutes=max_minutes,
        save_minutes=save_minutes,
        threads=threads,
        cpu=cpu,
        faces=faces,
        stream=stream,
    )
    click.echo(f"{train(config, options)} steps done: {out}")


@click.command("export-bundle")
@click.option("--base", "base_run", type=FOLDER, required=True, help="Folder of the base run, or of a bundle.")
@click.option("--sr", "sr_run", type=FOLDER, required=True, help="Folder of the super-resolution run, or of a bundle.")
@click.option("--blend", type=FOLDER, help="Bundle that the base run started from: its weights stay in part.")
@click.option("--blend-share", type=click.FloatRange(0, 1), default=0.5, help="Of the run's weights, with --blend.")
@click.option("--out", type=FOLDER, required=True, help="The bundle's folder.")
@click.option("--name", help="Name of the bundle [as the folder in --out].")
@click.option("--licence", required=True, help="Licence of the weights.")
@click.option("--storage", type=click.Choice(["fp16", "fp32"]), default="fp16")
@click.option("--steps", type=click.IntRange(1, 1000), default=250, help="Default steps of the base stage.")
@click.option("--sr-steps", type=click.IntRange(1, 1000), default=250, help="Default steps of super-resolution.")
@click.option("--sampler", type=SAMPLER, default="ddpm", help="Default sampler of the base stage.")
@click.option("--spacing", type=SPACING, default="uniform", help="Default spacing of the base stage's time steps.")
@click.option("--eta", type=click.FloatRange(0, 1), default=0.0, help="Default eta of the base stage; for ddim.")
@click.option("--sr-sampler", type=SAMPLER, default="ddpm", help="Default sampler of super-resolution.")
@click.option("--sr-eta", type=click.FloatRange(0, 1), default=0.0, help="Default eta of super-resolution; for ddim.")
@click.option("--sr-consistency", type=click.FloatRange(0, 1), default=0.0, help="Default of super-resolution.")
def export_bundle_command(
    base_run: Path,
    sr_run: Path,
    blend: Path | None,
    blend_share: float,
    out: Path,
    name: str | None,
    licence: str,
    storage: Storage,
    steps: int,
    sr_steps: int,
    sampler: SamplerName,
    spacing: SpacingName,
    eta: float,
    sr_sampler: SamplerName,
    sr_eta: float,
    sr_consistency: float,
) -> None:
    """Write the averaged weights of two runs as a bundle with a training card.

    The runs may still be going on: their newest checkpoints are taken.
    """
    bundle = export_bundle(
        base_run,
        sr_run,
        out,
        name=name or out.resolve().name,
        licence=licence,
        sampling=SamplingOptions(sampler=sampler, steps=steps, spacing=spacing, eta=eta),
        sr_sampling=dataclasses.replace(
            PAPER_SR_SAMPLING, sampler=sr_sampler, steps=sr_steps, eta=sr_eta, consistency=sr_consistency
        ),
        storage=storage,
        blend=blend,
        blend_share=blend_share,
    )
    click.echo(f"{bundle.name}: {out}")
