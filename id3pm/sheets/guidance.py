"""Guidance: from the average face of an ID vector to its caricature (paper, Fig. 4 and Tables 4 and 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.pipeline import Pipeline
from id3pm.sheets.commands import common_options, given, numbers
from id3pm.sheets.grid import Tile, grid
from id3pm.sheets.output import Effect, save
from id3pm.sheets.studio import Shots, Studio, captions

SCALES = "1,1.5,2,3,5,8"


@dataclasses.dataclass(frozen=True)
class Columns:
    """What a sheet goes through.

    Attributes:
        name: Of the files.
        control: What is varied.
        headings: Of the columns.
        options: What is asked for in each.
    """

    name: str
    control: str
    headings: Sequence[str]
    options: Sequence[dict[str, Any]]


@click.command("guidance")
@common_options
@click.option("--scales", callback=numbers, default=SCALES, help="Guidance scales, from 1 to 10.")
@click.option("--percentile", type=float, help="Of dynamic thresholding; else the bundle's default.")
@click.option(
    "--percentiles", callback=numbers, help="A sheet of these instead, at --scale, such as 0,0.9,0.99,1; 0 clips."
)
@click.option(
    "--interval",
    "intervals",
    type=(click.IntRange(0), click.IntRange(0)),
    multiple=True,
    metavar="LOW HIGH",
    help="A sheet of these instead, at --scale: training time steps with guidance. Repeats.",
)
@click.option("--scale", type=float, default=3.0, help="Guidance scale of --percentiles and --interval.")
def guidance_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    super_resolution: bool,
    threads: int | None,
    scales: tuple[float, ...],
    percentile: float | None,
    percentiles: tuple[float, ...] | None,
    intervals: tuple[tuple[int, int], ...],
    scale: float,
) -> None:
    """The guidance scale (Fig. 4): a row of faces for each person, from little guidance to much.

    Or, at one scale, the percentile of dynamic thresholding, or the time steps with guidance.
    """
    if percentiles and intervals:
        raise click.UsageError("--percentiles and --interval make a sheet each: give one of them")
    columns = _columns(scales, percentiles, intervals, scale)
    options = given(steps=steps, dynamic_threshold=percentile)
    with Studio(Pipeline.load(repository, threads=threads), super_resolution) as studio:
        people = studio.people(photos)
        vectors = np.stack([person.vector for person in people])
        shots = [studio.shoot(vectors, seed, **{**options, **column}) for column in columns.options]
    rows: list[list[Tile | None]] = [
        [Tile(person.image, "target"), *(Tile(each.images[row], captions(each)[row]) for each in shots)]
        for row, person in enumerate(people)
    ]
    title = f"{columns.control}; cosine similarity to the target ({len(people)} people, seed {seed})"
    sheet = grid(rows, title=title, columns=["", *columns.headings])
    effect, measured = _effect(columns, shots)
    report = {"seed": seed, "options": options, "columns": list(columns.options), **measured}
    click.echo(save(out, columns.name, sheet, [effect], report))


def _columns(
    scales: Sequence[float],
    percentiles: Sequence[float] | None,
    intervals: Sequence[tuple[int, int]],
    scale: float,
) -> Columns:
    if percentiles:
        headings = [f"{value:g}" if value else "clipped" for value in percentiles]
        asked: list[dict[str, Any]] = [{"guidance_scale": scale, "dynamic_threshold": value} for value in percentiles]
        return Columns("guidance_threshold", f"Dynamic thresholding at guidance {scale:g}", headings, asked)
    if intervals:
        asked = [{"guidance_scale": scale, "guidance_low": low, "guidance_high": high} for low, high in intervals]
        headings = [f"{low}-{high}" for low, high in intervals]
        return Columns("guidance_interval", f"Time steps with guidance {scale:g}", headings, asked)
    asked = [{"guidance_scale": value} for value in scales]
    return Columns("guidance", "Guidance scale", [f"{value:g}" for value in scales], asked)


def _effect(columns: Columns, shots: Sequence[Shots]) -> tuple[Effect, dict[str, Any]]:
    means = [float(np.nanmean(each.similarity)) for each in shots]
    best = int(np.argmax(means))
    # Contrast: what guidance drives up, and what dynamic thresholding is there to hold.
    contrast = [float(each.images.astype(np.float32).std()) for each in shots]
    effect = Effect(
        control=columns.control[:1].lower() + columns.control[1:],
        change=f"{columns.headings[0]} -> {columns.headings[-1]}",
        kept=f"{means[0]:.2f} -> {means[-1]:.2f}, best {means[best]:.2f} at {columns.headings[best]}",
        moved=f"contrast of the images {contrast[0]:.0f} -> {contrast[-1]:.0f} grey levels",
    )
    measured = {
        "headings": list(columns.headings),
        "similarity": means,
        "no_face": [int(np.isnan(each.similarity).sum()) for each in shots],
        "pixel_std": contrast,
    }
    return effect, measured
