"""From one person to another along the great circle between their ID vectors (paper, Fig. 13; supplement 5.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.errors import InvalidInputError
from id3pm.latent.interpolate import lerp, slerp
from id3pm.pipeline import Pipeline
from id3pm.sheets.commands import common_options, given
from id3pm.sheets.grid import Tile, grid
from id3pm.sheets.latent import correlation, cosines, listed, mean, number, rising, show_option
from id3pm.sheets.output import Effect, save
from id3pm.sheets.studio import Studio


@click.command("interpolation")
@common_options
@show_option(2, "pairs")
@click.option("--count", type=click.IntRange(3), default=7, help="Images from one end to the other.")
@click.option("--linear", is_flag=True, help="Along the chord instead of the great circle.")
def interpolation_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    super_resolution: bool,
    threads: int | None,
    show: int,
    count: int,
    linear: bool,
) -> None:
    """Interpolation (Fig. 13): a row from one person to another, with the similarity to both."""
    options = given(steps=steps)
    shares = np.linspace(0.0, 1.0, count)
    with Studio(Pipeline.load(repository, threads=threads), super_resolution) as studio:
        people = studio.people(photos)
        pairs = pairs_of(len(people))
        between = lerp if linear else slerp
        asked = np.stack([between(people[a].vector, people[b].vector, shares) for a, b in pairs])
        shots = studio.shoot(asked.reshape(-1, asked.shape[-1]), seed, **options)
    found = shots.vectors.reshape(asked.shape)
    images = shots.images.reshape(len(pairs), count, *shots.images.shape[1:])
    to_a = cosines(found, np.stack([people[a].vector for a, _ in pairs])[:, np.newaxis])
    to_b = cosines(found, np.stack([people[b].vector for _, b in pairs])[:, np.newaxis])
    rows: list[list[Tile | None]] = [
        [
            Tile(people[a].image, "left"),
            *(Tile(images[row, n], f"{number(to_a[row, n])} | {number(to_b[row, n])}") for n in range(count)),
            Tile(people[b].image, "right"),
        ]
        for row, (a, b) in enumerate(pairs[:show])
    ]
    title = "From one person to another; cosine similarity of each image to the left | to the right person"
    sheet = grid(rows, title=title, columns=["", *(f"t = {share:.2f}" for share in shares), ""])
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "path": "lerp" if linear else "slerp",
        "t": shares.tolist(),
        "pairs": [[people[a].name, people[b].name] for a, b in pairs],
        "to_first": listed(to_a),
        "to_second": listed(to_b),
        "to_asked": listed(shots.similarity.reshape(to_a.shape)),
        "correlation_with_t": {"to_first": correlation(to_a, shares), "to_second": correlation(to_b, shares)},
        "monotonic": {"to_first_falls": rising(-to_a), "to_second_rises": rising(to_b)},
    }
    a, b = mean(to_a, 0), mean(to_b, 0)
    effect = Effect(
        control=f"interpolation ({'lerp' if linear else 'slerp'})",
        change=f"t 0 -> 1 in {count} images, {len(pairs)} pairs",
        kept=f"{mean(shots.similarity):.2f} to the vector between, {len(shots.images)} images",
        moved=(
            f"similarity to the first {a[0]:.2f} -> {a[-1]:.2f}, to the second {b[0]:.2f} -> {b[-1]:.2f}; correlation "
            f"with t {correlation(to_a, shares):.2f} and {correlation(to_b, shares):.2f}; "
            f"{(rising(-to_a) + rising(to_b)) / 2:.0%} of the steps in the right direction"
        ),
    )
    click.echo(save(out, "interpolation", sheet, [effect], report))


def pairs_of(count: int) -> list[tuple[int, int]]:
    """Neighbours in a circle of people; first those that share nobody.

    Raises:
        InvalidInputError: There are not two.
    """
    if count < 2:
        raise InvalidInputError("interpolation needs two people: give --photo twice, or a folder")
    circle = [(a, (a + 1) % count) for a in range(count if count > 2 else 1)]
    return circle[::2] + circle[1::2]
