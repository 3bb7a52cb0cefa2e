"""The guidance scale (paper, Fig. 4 and Tables 4 and 5).

More guidance gives more similarity to the person and less difference between seeds, so a sheet shows several seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.command_options import given, numbers, option, takes
from id3pm.evaluation.figures.common import listed, mean, number
from id3pm.evaluation.figures.diversity import contrast, interval, pixels_apart, saturated, vectors_apart
from id3pm.evaluation.figures.generator import FaceGenerator, GeneratedFaces, Person
from id3pm.evaluation.figures.grid import Tile, grid, mosaic
from id3pm.evaluation.figures.sheet import Effect, ImageOptions

Scalar = TypeVar("Scalar", bound=np.generic)
SCALES = "1,1.5,2,3,5,8"
BLOCK = 260  # pixels: four images of 64 px with a gap, twice as large


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a sheet, one setting each.

    Attributes:
        name: Name of the files.
        control: The varied option.
        headings: Headings of the columns.
        options: Options of each column.
    """

    name: str
    control: str
    headings: Sequence[str]
    options: Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """The images of one column, all seeds of the first person, then those of the next, and their cost.

    Attributes:
        faces: The images.
        people: How many.
        evaluations: Rows that the 64 px U-Net computed for each image.
    """

    faces: GeneratedFaces
    people: int
    evaluations: int

    def of_people(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """An array [P * S, ...] of the images as [P, S, ...]."""
        return values.reshape(self.people, -1, *values.shape[1:])

    @property
    def similarity(self) -> NDArray[np.float64]:
        """Mean similarity to the target of each person's images, [P]; NaN without a face."""
        return np.array([mean(each) for each in self.of_people(self.faces.similarity)])

    @property
    def vectors_apart(self) -> NDArray[np.float64]:
        """See `id3pm.evaluation.figures.diversity`, [P]."""
        return vectors_apart(self.of_people(self.faces.vectors))

    @property
    def pixels_apart(self) -> NDArray[np.float64]:
        """See `id3pm.evaluation.figures.diversity`, [P]."""
        return pixels_apart(self.of_people(self.faces.images))

    @property
    def ms(self) -> float:
        """Milliseconds of processor time for each image, made together."""
        return 1e3 * self.faces.seconds / len(self.faces.images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceOptions(ImageOptions):
    """The options of `id3pm sheet guidance`."""

    show: int = option(type=click.IntRange(1), default=3, help="How many people the picture shows.")
    seeds: int = option(type=click.IntRange(2), default=4, help="Images of each person.")
    scales: tuple[float, ...] = option(callback=numbers(), default=SCALES, help="Guidance scales, from 1 to 10.")
    percentile: float | None = option(type=float, help="Of dynamic thresholding; else the bundle's default.")
    percentiles: tuple[float, ...] | None = option(
        callback=numbers(), help="A sheet of these instead, at --scale, such as 0,0.9,0.99,1; 0 clips."
    )
    intervals: tuple[tuple[int, int], ...] = option(
        "--interval",
        type=(click.IntRange(0), click.IntRange(0)),
        multiple=True,
        metavar="LOW HIGH",
        help="A sheet of these instead, at --scale: training timesteps with guidance. Repeats.",
    )
    scale: float = option(type=float, default=3.0, help="Guidance scale of --percentiles and --interval.")

    @property
    def sampling(self) -> dict[str, Any]:
        """See `SheetOptions.sampling`."""
        return given(self, "steps", percentile="dynamic_threshold")

    def columns(self) -> Columns:
        """The settings of the sheet.

        Raises:
            click.UsageError: Two kinds of columns are asked for.
        """
        if self.percentiles and self.intervals:
            raise click.UsageError("--percentiles and --interval make a sheet each: give one of them")
        scale = {"guidance_scale": self.scale}
        if self.percentiles:
            headings = [f"{value:g}" if value else "clipped" for value in self.percentiles]
            requested: list[dict[str, Any]] = [{**scale, "dynamic_threshold": value} for value in self.percentiles]
            return Columns("guidance_threshold", f"Dynamic threshold at guidance {self.scale:g}", headings, requested)
        if self.intervals:
            requested = [{**scale, "guidance_low": low, "guidance_high": high} for low, high in self.intervals]
            headings = [f"{low}-{high}" for low, high in self.intervals]
            return Columns("guidance_interval", f"Time steps with guidance {self.scale:g}", headings, requested)
        headings = [f"{value:g}" for value in self.scales]
        return Columns("guidance", "Guidance scale", headings, [{"guidance_scale": value} for value in self.scales])


@click.command("guidance")
@takes(GuidanceOptions)
def guidance_command(options: GuidanceOptions) -> None:
    """The guidance scale (Fig. 4): several seeds of each person, from little guidance to much.

    Or, at one scale, the percentile of dynamic thresholding, or the timesteps with guidance.
    """
    columns = options.columns()
    seeds = list(range(options.seed, options.seed + options.seeds))
    with options.generator(options.super_resolution) as generator:
        for column in columns.options:  # fail now, not at the last column
            generator.pipeline.check(super_resolution=False, **{**options.sampling, **column})
        people = generator.people(options.photos)
        made = _generate(generator, people, seeds, columns, options.sampling)
        loop = generator.sampling(**options.sampling)
    how = f"{loop.steps} steps of {loop.sampler}"
    if columns.name != "guidance_threshold":
        how += f", dynamic threshold {loop.dynamic_threshold:g}"
    title = (
        f"{columns.control}: {min(options.show, len(people))} of {len(people)} people, seeds {seeds[0]} to "
        f"{seeds[-1]}, {how}\nBelow each block: mean similarity to the target; how far apart its images are, by their "
        "ID vectors (mean of 1 - cosine)"
    )
    report = {
        "people": [person.name for person in people],
        "seeds": seeds,
        "columns": list(columns.options),
        "headings": list(columns.headings),
        "measured": [_numbers(column) for column in made],
    }
    effects = [_effect(columns, *each) for each in zip(columns.headings, made, strict=True)]
    options.write(columns.name, _sheet(columns, made, people[: options.show], title), effects, report)


def _generate(
    generator: FaceGenerator, people: Sequence[Person], seeds: list[int], columns: Columns, sampling: dict[str, Any]
) -> list[Column]:
    vectors = np.repeat(np.stack([person.vector for person in people]), len(seeds), axis=0)
    generator.generate(vectors[:1], seeds[0], **sampling)  # the first call is slower than those that are timed
    return [
        Column(
            generator.generate(vectors, seeds * len(people), **sampling, **column),
            len(people),
            generator.evaluations(**sampling, **column),
        )
        for column in columns.options
    ]


def _sheet(columns: Columns, made: Sequence[Column], people: Sequence[Person], title: str) -> Image.Image:
    """A row for each person: the target, and a block of all seeds for each column."""
    rows: list[list[Tile | None]] = [
        [
            Tile(person.image, f"target {person.name}"),
            *(
                Tile(
                    mosaic(column.of_people(column.faces.images)[row]),
                    f"{number(column.similarity[row])}; {number(column.vectors_apart[row])} apart",
                )
                for column in made
            ),
        ]
        for row, person in enumerate(people)
    ]
    headings = list(columns.headings)
    if columns.name == "guidance_interval":
        headings = [f"{text}: {each.evaluations} evaluations" for text, each in zip(headings, made, strict=True)]
    return grid(rows, title=title, columns=["", *headings], size=BLOCK)


def _effect(columns: Columns, heading: str, column: Column) -> Effect:
    moved = (
        f"seeds {_spread(column.vectors_apart, '.2f')} apart by ID vectors, {_spread(column.pixels_apart, '.0f')} grey "
        f"levels by pixels; contrast {mean(contrast(column.faces.images)):.0f} grey levels"
    )
    if columns.name == "guidance_threshold":
        moved += f"; {mean(saturated(column.faces.images)):.1%} of the values black or white"
    if columns.name == "guidance_interval":
        moved = f"{column.evaluations} evaluations an image, {column.ms:.0f} ms of processor time; {moved}"
    return Effect(
        control=columns.control[:1].lower() + columns.control[1:],
        change=heading,
        kept=_spread(column.similarity, ".2f"),
        moved=moved,
    )


def _spread(people: NDArray[np.float64], form: str) -> str:
    """Mean over people and its confidence interval."""
    low, high = interval(people)
    return f"{mean(people):{form}} ({low:{form}} .. {high:{form}})"


def _numbers(column: Column) -> dict[str, object]:
    """The measurements of one column: JSON values."""
    images = column.faces.images
    return {
        "similarity": listed(column.similarity),
        "similarity_interval": listed(np.array(interval(column.similarity))),
        "vectors_apart": listed(column.vectors_apart),
        "vectors_apart_interval": listed(np.array(interval(column.vectors_apart))),
        "pixels_apart": listed(column.pixels_apart),
        "pixels_apart_interval": listed(np.array(interval(column.pixels_apart))),
        "contrast": mean(contrast(images)),
        "saturated": mean(saturated(images)),
        "no_face": int(np.isnan(column.faces.similarity).sum()),
        "evaluations": column.evaluations,
        "ms": column.ms,
    }
