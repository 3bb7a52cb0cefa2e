"""Commands `id3pm demo-dataset`, `embed-dataset`, `measure-dataset`: data sets for training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import click

from id3pm.command_options import (
    EXISTING,
    EXISTING_FILE,
    EXISTING_FOLDER,
    FOLDER,
    argument,
    option,
    takes,
)
from id3pm.errors import InvalidInputError
from id3pm.face.framing import Crop
from id3pm.training.demo_data import DemoJob, make_demo_dataset
from id3pm.training.embedding import FaceFilter
from id3pm.training.labels import AttributeFiles, Split
from id3pm.training.measured import measure_dataset
from id3pm.training.picture_data import SKIPPED_FILE, PictureJob, embed_pictures
from id3pm.training.sources import open_source


@dataclasses.dataclass(frozen=True, kw_only=True)
class FacesOption:
    """The folder of the face models."""

    faces: Path = option(
        type=FOLDER, default=Path("triton_repo/face_embedding/1/engine"), help="Face engine folder (id3pm build-faces)."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoDatasetOptions(FacesOption):
    """The options of `id3pm demo-dataset`."""

    out: Path = option(type=FOLDER, default=Path("data/demo"))
    count: int = option(type=click.IntRange(1), default=60_000, help="Number of faces; an existing set grows.")
    seed: int = option(type=click.IntRange(0), default=0)
    workers: int = option(type=click.IntRange(1), default=2, help="Processes, one core each.")
    held_out_only: bool = option(is_flag=True, help="Make the held-out people alone, for id3pm train --stream.")


@click.command("demo-dataset")
@takes(DemoDatasetOptions)
def demo_dataset_command(options: DemoDatasetOptions) -> None:
    """Make the embedded training set: generated faces, filtered, with ID vectors.

    Deterministic by seed, and resumable: what is complete is kept.
    """
    job = DemoJob(folder=options.out, faces=options.faces, seed=options.seed, held_out_only=options.held_out_only)
    click.echo(f"{make_demo_dataset(job, options.count, options.workers)} faces in {options.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedDatasetOptions(FacesOption):
    """The options of `id3pm embed-dataset`."""

    pictures: Path = argument(type=EXISTING)
    out: Path = option(type=FOLDER, required=True)
    size: int = option(type=click.IntRange(16, 1024), default=64, help="Side of the images in pixels.")
    crop: Crop = option(
        type=click.Choice(get_args(Crop)),
        default="face",
        help="The face upright at one place, or the whole (middle square of the) picture where it is aligned already.",
    )
    min_score: float = option(type=click.FloatRange(0, 1), default=0.6, help="Least score of the detector.")
    image_column: str | None = option(help="Of parquet tables; else found by type and name.")
    ffhq_json: Path | None = option(
        type=EXISTING_FILE, help="ffhq-dataset-v2.json: its category decides what is held out."
    )
    attribute_set: int | None = option(
        type=click.IntRange(1, 3),
        help="Store this set's attributes from the FFHQ features JSON beside each picture.",
    )
    attributes: Path | None = option(type=EXISTING_FOLDER, help="Folder of those JSON files, if they are not beside.")


@click.command("embed-dataset")
@takes(EmbedDatasetOptions)
def embed_dataset_command(options: EmbedDatasetOptions) -> None:
    """Turn pictures into training images with ID vectors.

    PICTURES is a folder of pictures, of webdataset .tar files or of .parquet files (or one such file); folders are
    searched with their subfolders. Resumable; pictures that cannot be used are skipped and listed.
    """
    ffhq_json, attribute_set, out = options.ffhq_json, options.attribute_set, options.out
    if options.attributes is not None and attribute_set is None:
        raise InvalidInputError("--attributes needs --attribute-set: 1, 2 or 3")
    job = PictureJob(
        source=open_source(options.pictures, options.image_column),
        folder=out,
        faces=options.faces,
        image_size=options.size,
        crop=options.crop,
        face_filter=FaceFilter(min_score=options.min_score),
        split=None if ffhq_json is None else Split(ffhq_json),
        attributes=None if attribute_set is None else AttributeFiles(attribute_set, options.attributes),
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
