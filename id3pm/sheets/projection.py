"""Onto the first k principal axes: how many numbers of an ID vector make the person (paper, Fig. 15)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.pipeline import Pipeline
from id3pm.sheets.commands import common_options, given
from id3pm.sheets.grid import Tile, grid
from id3pm.sheets.latent import bundle_option, cosines, listed, load_pca, mean, number, rising, show_option
from id3pm.sheets.output import Effect, save
from id3pm.sheets.studio import Studio

ENOUGH = 0.95
"""Share of the similarity with all axes that counts as the same person."""


@click.command("projection")
@common_options
@bundle_option
@show_option(2)
def projection_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    super_resolution: bool,
    threads: int | None,
    bundle: Path,
    show: int,
) -> None:
    """Projection (Fig. 15): a row for each person, ID vectors projected onto 1, 2, 4, ... and all principal axes."""
    options = given(steps=steps)
    with Studio(Pipeline.load(repository, threads=threads), super_resolution) as studio:
        pca = load_pca(bundle, studio)
        people = studio.people(photos)
        counts = powers(len(pca.axes))
        asked = np.stack([[pca.project(one.vector, k) for k in counts] for one in people])
        shots = studio.shoot(asked.reshape(-1, asked.shape[-1]), seed, **options)
    found = shots.vectors.reshape(asked.shape)
    images = shots.images.reshape(*asked.shape[:2], *shots.images.shape[1:])
    targets = np.stack([one.vector for one in people])[:, np.newaxis]
    to_target, to_full = cosines(found, targets), cosines(found, found[:, -1:])
    vector_to_target = cosines(asked, targets)
    rows: list[list[Tile | None]] = [
        [
            Tile(one.image, "target"),
            *(
                Tile(images[person, n], f"{number(to_target[person, n])} | {number(to_full[person, n])}")
                for n in range(len(counts))
            ),
        ]
        for person, one in enumerate(people[:show])
    ]
    title = (
        f"ID vectors projected onto the first k of {len(pca.axes)} principal axes; "
        "cosine similarity to the target | to the last image"
    )
    sheet = grid(rows, title=title, columns=["", *(f"k = {k}" for k in counts)])
    means, full = mean(to_target, 0), mean(to_full, 0)
    enough = next(k for k, value in zip(counts, means, strict=True) if value >= ENOUGH * means[-1])
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "k": counts,
        "people": [one.name for one in people],
        "to_target": listed(to_target),
        "to_full_image": listed(to_full),
        "vector_to_target": listed(vector_to_target),
        "explained": [float(pca.explained[:k].sum()) for k in counts],
        "enough": enough,
        "trained_on": pca.trained_on,
    }
    effect = Effect(
        control="projection onto k principal axes",
        change=f"k {counts[0]} -> {counts[-1]}, {len(people)} people",
        kept=f"{means[0]:.2f} -> {means[-1]:.2f}; {ENOUGH:.0%} of it with k = {enough}, {len(shots.images)} images",
        moved=(
            f"similarity to the image of the whole vector {full[0]:.2f} at k = {counts[0]}, {full[-2]:.2f} at "
            f"k = {counts[-2]}; {rising(to_target):.0%} of the doublings bring the target nearer"
        ),
    )
    click.echo(save(out, "projection", sheet, [effect], report))


def powers(count: int) -> list[int]:
    """1, 2, 4, ... up to `count`, which comes last."""
    found = [1]
    while found[-1] * 2 < count:
        found.append(found[-1] * 2)
    return found if found[-1] == count else [*found, count]
