"""Command `id3pm evaluate super-resolution`."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import get_args

import click
import numpy as np
from numpy.typing import NDArray

from id3pm.command_options import BUNDLE, FOLDER, given, option, takes
from id3pm.config import SamplerName, SamplingOptions
from id3pm.errors import InvalidInputError
from id3pm.evaluation import files
from id3pm.evaluation.options import FACE_MODELS, DataOptions
from id3pm.evaluation.progress import progress_bar
from id3pm.evaluation.super_resolution.report import write_super_resolution_report
from id3pm.evaluation.super_resolution.study import compare, enlarge, held_out_photographs, photograph_crops
from id3pm.face.stage import FaceStage
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import read_bundle, weights_hash
from id3pm.formats.picture_files import named_pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolutionOptions(DataOptions):
    """The options of `id3pm evaluate super-resolution`."""

    bundle: Path = option(type=BUNDLE, default=Path("bundles/demo"))
    count: int = option(type=click.IntRange(1), default=64, help="Held-out faces.")
    photographs: Path | None = option(type=FOLDER, help="Folder of JPEG or PNG files; else some that packages carry.")
    sampler: SamplerName | None = option(type=click.Choice(get_args(SamplerName)), help="Else the bundle's default.")
    steps: int | None = option(type=int, help="Else the bundle's default.")
    consistency: float | None = option(type=float, help="Else the bundle's default.")

    def sampling(self, default: SamplingOptions) -> SamplingOptions:
        """The bundle's options with those that were given."""
        changes = given(self, "sampler", "steps", "consistency")
        if changes.get("sampler", default.sampler) != default.sampler:
            changes["eta"] = 0.0  # the bundle's belongs to its sampler
        return dataclasses.replace(default, **changes)


@click.command("super-resolution")
@takes(SuperResolutionOptions)
def super_resolution_command(options: SuperResolutionOptions) -> None:
    """Compare the super-resolution network with Lanczos.

    PSNR, SSIM and identity on held-out faces and on crops of photographs: super_resolution.json, .md and .png in
    --out. Runs the bundle's PyTorch network, because engines are built for one size.
    """
    files.new_figure(1, 1)  # a missing plot library is noticed now
    description = read_bundle(options.bundle)
    sampling = options.sampling(description.sr_sampling)
    judge = options.stage_judge(FaceStage.load(options.repository / FACE_MODELS, options.threads))
    faces = shards.load(options.data, "test")["images"][: options.count]
    crops = photograph_crops(_pictures(options.photographs), description.sr.image_size)
    sets = (("held-out faces", faces, judge), ("photographs", crops, None))
    comparisons, shown = [], []
    with progress_bar() as bar:
        for name, truth, face_judge in sets:
            advance = functools.partial(bar.advance, bar.add_task(name, total=len(truth)))
            enlarged = enlarge(options.bundle, truth, sampling, advance)
            comparisons.append(compare(name, enlarged, face_judge))
            shown.append(enlarged)
    subject = {
        "bundle": description.name,
        "weights": weights_hash(options.bundle, "sr")[: files.SHORT],
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "consistency": sampling.consistency,
    }
    write_super_resolution_report(options.out, subject, comparisons, shown)
    click.echo(f"report: {options.out / 'super_resolution.md'}")


def _pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    if folder is not None:
        return list(named_pictures(folder).values())
    if not (pictures := held_out_photographs()):
        raise InvalidInputError("no photographs: pip install scikit-image, which carries some, or --photographs")
    return pictures
