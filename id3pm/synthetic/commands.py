"""Command `id3pm dataset`: plan, run, check, export."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import click
from rich.console import Console

from id3pm.command_options import EXISTING, EXISTING_FILE, FOLDER, REPOSITORY, argument, given, option, takes
from id3pm.errors import InvalidInputError
from id3pm.formats.datasets import Split
from id3pm.idspace.pca import Pca
from id3pm.sampling.presets import PRESETS
from id3pm.synthetic import identities as sources
from id3pm.synthetic import packing
from id3pm.synthetic.check import check_dataset
from id3pm.synthetic.draws import Draw, parse_draw
from id3pm.synthetic.errors import OtherDatasetError
from id3pm.synthetic.exports import FORMATS, export_dataset
from id3pm.synthetic.plan_header import ImageFormat
from id3pm.synthetic.planning import Planner, Rules, describe_identities
from id3pm.synthetic.run import run
from id3pm.synthetic.run_options import RunOptions
from id3pm.synthetic.store import open_store, split
from id3pm.synthetic.variations import Variations, parse_attributes, read_attributes

REFUSED = 3
"""Exit status where the folder holds another data set: running again does not help."""
NEEDS_SOURCE = {("people", "between"): ("people", "split"), ("pca",): ("pca",), ("between",): ("share",)}
"""Options that mean something with these sources only."""


def _limit(context: click.Context, parameter: click.Parameter, text: str) -> float | str | None:
    """`none`, `default` or a number."""
    if text in ("none", "default"):
        return None if text == "none" else text
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}: give a number from -1 to 1, or none") from None


def _options(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """Sampling options `NAME=VALUE`; numbers as numbers."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{text!r}: give NAME=VALUE, such as steps=25")
        found[name] = _number_or_word(value)
    return found


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options of `id3pm dataset plan`."""

    plan: str = argument()
    repository: Path = option(type=REPOSITORY, default=Path("triton_repo"), help="Built engines and face models.")
    source: sources.Source = option(
        "--from", type=click.Choice(sources.SOURCES), default="sphere", help="Where the identities come from."
    )
    identities: int | None = option(type=click.IntRange(1), help="How many; else all of --people.")
    people: Path | None = option(type=EXISTING, help="ID vectors: .npy, .npz or the folder of a data set.")
    split: Split | None = option(
        type=click.Choice(get_args(Split)), help="Half of the data set --people.  [default: test]"
    )
    pca: Path | None = option(type=EXISTING_FILE, help="Principal axes, of id3pm latent fit-pca.")
    share: str | None = option(help="Way from one to another, a number or 0.3..0.7; with between.  [default: 0.5]")
    least_angle: float = option(type=float, default=0.0, help="Degrees that any two identities are apart at least.")
    images: int = option(type=click.IntRange(1), default=50, help="Of each identity.")
    guidance: str | None = option(help="A number, a range 1.5..3, or values 1.5,2,3.  [default: the bundle's]")
    attribute: tuple[str, ...] = option(
        multiple=True, help="yaw=-30..30, smile=0,0.5,1 or emotion=happy,sad: drawn for each image."
    )
    attributes: Path | None = option(type=EXISTING_FILE, help="CSV or JSON lines, of which a row is drawn.")
    preset: str | None = option(type=click.Choice(tuple(PRESETS)), help="Sampling options of both stages.")
    sampling: Mapping[str, Any] = option(
        "--option", callback=_options, multiple=True, metavar="NAME=VALUE", help="A sampling option, e.g. steps=25."
    )
    seed: int = option(type=click.IntRange(0, 2**63 - 1), default=0, help="Of all that is drawn.")
    shard_size: int = option(type=click.IntRange(1), default=1000, help="Images of a shard, in whole identities.")
    image_format: ImageFormat = option(
        "--format",
        type=click.Choice(get_args(ImageFormat)),
        default="png",
        help="jpg: quality 95, a quarter of the size.",
    )
    least_similarity: Any = option(
        callback=_limit,
        default="default",
        show_default=False,
        help="Cosine of image and target.  [default: the FR model's threshold]",
    )
    most_other: Any = option(
        callback=_limit,
        default="default",
        show_default=False,
        help="Cosine of image and any other identity.  [default: the same]",
    )
    second: Literal["dlib", "none"] = option(
        type=click.Choice(("dlib", "none")), default="dlib", help="Second FR model (extra evaluate)."
    )
    least_second: Any = option(
        callback=_limit,
        default="default",
        show_default=False,
        help="Its similarity of an image and the identity's others.  [default: 0.4]",
    )
    attempts: int = option(type=click.IntRange(1, 1000), default=4, help="Seeds that are tried for each image.")

    def chosen(self, planner: Planner) -> sources.Identities:
        """The identities.

        Raises:
            InvalidInputError: See `id3pm.synthetic.identities.choose`.
        """
        for kinds, names in NEEDS_SOURCE.items():
            unused = given(self, *names)
            if unused and self.source not in kinds:
                name = next(iter(unused)).replace("_", "-")
                raise InvalidInputError(f"--{name}: is for --from {' and '.join(kinds)}, not for {self.source}")
        space = planner.space
        people = None if self.people is None else sources.read_people(self.people, self.split or "test", space)
        pca = None if self.pca is None else Pca.load(self.pca)
        share = None if self.share is None else parse_draw(self.share, "share")
        return sources.choose(
            self.source, self.identities, self.least_angle, self.seed, space, people=people, pca=pca, share=share
        )

    def variations(self, guidance: float) -> Variations:
        """The variations.

        Raises:
            InvalidInputError: A value breaks a rule.
        """
        rows = () if self.attributes is None else read_attributes(self.attributes)
        drawn = Draw(values=(guidance,)) if self.guidance is None else parse_draw(self.guidance, "guidance")
        return Variations(
            images=self.images, guidance_scale=drawn, attributes=parse_attributes(self.attribute), rows=rows
        )

    def rules(self) -> Rules:
        """The filters that are asked for."""
        return Rules(
            least_similarity=self.least_similarity,
            most_other=self.most_other,
            second=None if self.second == "none" else self.second,
            least_second=self.least_second,
            attempts=self.attempts,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `id3pm dataset check`."""

    folder: str = argument()
    report: Path | None = option(type=FOLDER, help="Folder for check.json and similarities.png.")
    too_close: float = option(type=float, default=30.0, help="Degrees below which two identities are named; 0: none.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of `id3pm dataset export`."""

    folder: str = argument()
    out: Path = option(type=FOLDER, required=True, help="New or empty folder.")
    to: str = option(type=click.Choice(tuple(FORMATS)), required=True, help="Layout.")


@click.group("dataset")
def dataset_group() -> None:
    """Synthetic data sets of faces: plan them, make them on any number of machines, check and export them."""


@dataset_group.command("plan")
@takes(PlanOptions)
def plan_command(options: PlanOptions) -> None:
    """Writes the Parquet file PLAN: which identities, and which images of each.

    The same options give the same bytes. With the same engines the same plan gives the same images.
    """
    console = Console(stderr=True, highlight=False)
    planner = Planner(options.repository)
    asked = {**options.sampling, **({} if options.preset is None else {"preset": options.preset})}
    sampling, filters = planner.options(asked), planner.filters(options.rules())
    with console.status("identities"):
        chosen = options.chosen(planner)
    apart = f", at least {options.least_angle:g} degrees apart" if options.least_angle else ""
    with console.status("images"):
        header, data = planner.write(
            chosen,
            options.variations(planner.guidance(asked)),
            filters,
            sampling,
            seed=options.seed,
            source=f"{options.source}{apart}",
            shard_size=options.shard_size,
            image_format=options.image_format,
        )
    store, name = split(options.plan)
    store.write(name, data)
    click.echo(describe_identities(chosen))
    if options.least_angle:
        click.echo(_room(planner.space.identity_dim, options.least_angle))
    click.echo(f"{name}: {header.images} images in {header.shards} shards, {len(data) / 1e6:.1f} MB")


def _room(dim: int, degrees: float) -> str:
    low, high = packing.sphere_bounds(dim, degrees)
    return (
        f"room on the sphere of {dim} dimensions for {degrees:g} degrees: at least {_count(low)}, at most "
        f"{_count(high)}; how many of them this bundle can draw, run and check tell"
    )


def _count(number: float) -> str:
    return f"{number:.0f}" if number < 1e6 else "any number" if math.isinf(number) else f"{number:.1e}"


@dataset_group.command("run")
@takes(RunOptions)
def run_command(options: RunOptions) -> int:
    """Makes the shards of PLAN that are missing in --out.

    A shard is written whole or not at all, so an interrupted run is continued by the same command. Exit status 3: the
    folder, the plan and the engines do not belong together. Exit status 1: an error, or every image was rejected.
    """
    try:
        totals = run(options.settings(), options.make(), options.parts, options.part)
    except OtherDatasetError as error:
        click.echo(f"id3pm: {error}", err=True)
        return REFUSED
    click.echo(
        f"{totals.made} shards made, {totals.there} were there: {totals.kept} images, {totals.rejected} rejected, "
        f"{totals.missing} missing"
    )
    if totals.empty:
        click.echo(
            f"id3pm: every image was rejected: the data set has none. id3pm dataset check {options.out} counts the "
            "reasons; make another plan with weaker filters (--least-similarity, --most-other, --least-second) or more "
            "--attempts, and another folder",
            err=True,
        )
        return 1
    return 0


@dataset_group.command("check")
@takes(CheckOptions)
def check_command(options: CheckOptions) -> int:
    """Reads the data set in FOLDER: counts, hashes, similarities, identities that are too close.

    Exit status 1: a file is damaged.
    """
    report = check_dataset(open_store(options.folder), options.report, options.too_close)
    for line in report.lines():
        click.echo(line)
    return 1 if report.problems else 0


@dataset_group.command("export")
@takes(ExportOptions)
def export_command(options: ExportOptions) -> None:
    """Writes the data set in FOLDER in another layout.

    recordio: insightface's train.rec, train.idx and property, aligned faces of 112 px. imagefolder and parquet: as
    Hugging Face datasets reads them.
    """
    click.echo(export_dataset(open_store(options.folder), options.out, options.to))
