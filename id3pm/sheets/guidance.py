"""The guidance scale: from the average face of an ID vector to its caricature (paper, Fig. 4 and Tables 4 and 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.pipeline import Pipeline
from id3pm.sheets.commands import common_options, given, numbers
from id3pm.sheets.grid import Tile, grid
from id3pm.sheets.output import Effect, save
from id3pm.sheets.studio import Studio, captions


@click.command("guidance")
@common_options
@click.option("--scales", callback=numbers, default="1,1.5,2,3,5,8", help="Guidance scales, from 1 to 10.")
@click.option("--percentile", type=float, help="Of dynamic thresholding; else the bundle's default.")
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
) -> None:
    """The guidance scale (Fig. 4): a row of faces for each person, from little guidance to much."""
    options = given(steps=steps, dynamic_threshold=percentile)
    with Studio(Pipeline.load(repository, threads=threads), super_resolution) as studio:
        people = studio.people(photos)
        vectors = np.stack([person.vector for person in people])
        columns = [studio.shoot(vectors, seed, guidance_scale=scale, **options) for scale in scales]
    rows: list[list[Tile | None]] = [
        [
            Tile(person.image, "target"),
            *(Tile(shots.images[row], text) for shots in columns for text in [captions(shots)[row]]),
        ]
        for row, person in enumerate(people)
    ]
    title = f"Guidance scale; cosine similarity to the target ({len(people)} people, seed {seed})"
    sheet = grid(rows, title=title, columns=["", *(f"{scale:g}" for scale in scales)])
    means = [float(np.nanmean(shots.similarity)) for shots in columns]
    best = int(np.argmax(means))
    # Contrast: what guidance drives up, and what dynamic thresholding is there to hold.
    contrast = [float(shots.images.astype(np.float32).std()) for shots in columns]
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "scales": list(scales),
        "similarity": means,
        "no_face": [int(np.isnan(shots.similarity).sum()) for shots in columns],
        "pixel_std": contrast,
    }
    effect = Effect(
        control="guidance scale",
        change=f"{scales[0]:g} -> {scales[-1]:g}",
        kept=f"{means[0]:.2f} -> {means[-1]:.2f}, best {means[best]:.2f} at {scales[best]:g}",
        moved=f"contrast of the images {contrast[0]:.0f} -> {contrast[-1]:.0f} grey levels",
    )
    click.echo(save(out, "guidance", sheet, [effect], report))
