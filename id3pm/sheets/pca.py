"""Along the principal axes of ID vectors (paper, Fig. 14; supplement 5.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.pipeline import Pipeline
from id3pm.sheets.commands import common_options, given, numbers
from id3pm.sheets.grid import Tile, grid
from id3pm.sheets.latent import (
    bundle_option,
    cosines,
    heading,
    listed,
    load_pca,
    mean,
    number,
    show_option,
    signed,
    slope,
)
from id3pm.sheets.output import Effect, save
from id3pm.sheets.studio import Studio


@click.command("pca")
@common_options
@bundle_option
@show_option(2)
@click.option("--axes", type=click.IntRange(1), default=3, help="The first so many.")
@click.option("--amounts", callback=numbers, default="-0.8,-0.4,0,0.4,0.8", help="In L2 norms of the ID vector.")
def pca_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    super_resolution: bool,
    threads: int | None,
    bundle: Path,
    show: int,
    axes: int,
    amounts: tuple[float, ...],
) -> None:
    """Principal axes (Fig. 14): a row for each person and axis, steps in L2 norms of the ID vector."""
    options = given(steps=steps)
    with Studio(Pipeline.load(repository, threads=threads), super_resolution) as studio:
        pca = load_pca(bundle, studio)
        people = studio.people(photos)
        # [people, axes, amounts, D]
        asked = np.stack([[pca.walk(one.vector, axis, amounts) for axis in range(axes)] for one in people])
        shots = studio.shoot(asked.reshape(-1, asked.shape[-1]), seed, **options)
        found = shots.vectors.reshape(asked.shape)
        start = studio.shoot(np.stack([one.vector for one in people]), seed, **options)
    images = shots.images.reshape(*asked.shape[:3], *shots.images.shape[1:])
    to_person = cosines(found, np.stack([one.vector for one in people])[:, np.newaxis, np.newaxis])
    # How far along its axis each image lies from the image of the person's own vector, against what was asked for.
    origin = coordinates_of(pca, start.vectors)[:, np.newaxis, np.newaxis]
    moved = coordinates_of(pca, found) - origin
    wanted = pca.coordinates(asked) - pca.coordinates(np.stack([one.vector for one in people]))[:, None, None]
    along = np.stack([moved[:, axis, :, axis] for axis in range(axes)], axis=1)  # [people, axes, amounts]
    along_wanted = np.stack([wanted[:, axis, :, axis] for axis in range(axes)], axis=1)
    others = np.stack([np.delete(moved[:, axis, :, :axes], axis, axis=-1) for axis in range(axes)], axis=1)
    rows: list[list[Tile | None]] = []
    labels = []
    for person, one in enumerate(people[:show]):
        for axis in range(axes):
            captions = [
                f"{signed(went, 2)} | {number(kept)}"
                for went, kept in zip(along[person, axis], to_person[person, axis], strict=True)
            ]
            target = Tile(one.image, "target") if axis == 0 else None
            rows.append([target, *map(Tile, images[person, axis], captions)])
            labels.append(f"{one.name}, axis {axis + 1}\n{pca.explained[axis]:.1%} of variance")
    title = "Principal axes, steps in L2 norms; moved along the axis | cosine similarity to the target"
    sheet = grid(rows, title=title, columns=["", *map(heading, amounts)], labels=labels)
    got = [slope(along_wanted[:, axis], along[:, axis]) for axis in range(axes)]
    aside = [float(mean(np.abs(others[:, axis]))) for axis in range(axes)]
    ends = [float(mean(along[:, axis, -1] - along[:, axis, 0])) for axis in range(axes)]
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "amounts": list(amounts),
        "people": [one.name for one in people],
        "explained": pca.explained[:axes].tolist(),
        "asked_along_axis": listed(along_wanted),
        "moved_along_axis": listed(along),
        "to_person": listed(to_person),
        "got_of_asked": got,
        "moved_along_others": aside,
        "trained_on": pca.trained_on,
    }
    near = int(np.argmin(np.abs(amounts)))
    effects = [
        Effect(
            control=f"principal axis {axis + 1}",
            change=f"{amounts[0]:+g} -> {amounts[-1]:+g} L2 norms, {len(people)} people",
            kept=(
                f"{mean(to_person[:, axis, near]):.2f} at {amounts[near]:g}, {mean(to_person[:, axis, 0]):.2f} and "
                f"{mean(to_person[:, axis, -1]):.2f} at the ends, {len(people) * len(amounts)} images"
            ),
            moved=(
                f"ID vectors of the images by {ends[axis]:+.2f} along the axis, {got[axis]:.0%} of what was asked; "
                f"along the other {axes - 1} shown by {aside[axis]:.2f}"
            ),
        )
        for axis in range(axes)
    ]
    click.echo(save(out, "pca", sheet, effects, report))


def coordinates_of(pca: Any, vectors: Any) -> Any:
    """`Pca.coordinates` of vectors [..., D], NaN where they are NaN."""
    known = np.isfinite(vectors).all(axis=-1)
    result = np.full((*vectors.shape[:-1], len(pca.axes)), np.nan)
    if known.any():
        result[known] = pca.coordinates(vectors[known])
    return result
