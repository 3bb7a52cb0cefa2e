"""From one person to another along the great circle between their ID vectors (paper, Figs. 5, 13; supplement 5.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.commands import given
from id3pm.evaluation.figures.common import (
    correlation,
    cosines,
    latent_options,
    listed,
    mean,
    number,
    rising,
    rows_shown,
    setting,
    to_show,
)
from id3pm.evaluation.figures.generator import FaceGenerator
from id3pm.evaluation.figures.grid import Tile, below, grid, titled
from id3pm.evaluation.figures.output import Effect, save
from id3pm.idspace.interpolate import lerp, slerp
from id3pm.pipeline import Pipeline


@click.command("interpolation")
@latent_options(2, "pairs")
@click.option("--count", type=click.IntRange(3), default=7, help="Images from one end to the other.")
@click.option("--linear", is_flag=True, help="Along the chord instead of the great circle.")
def interpolation_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    threads: int | None,
    show: int,
    names: tuple[str, ...],
    super_resolution: bool,
    count: int,
    linear: bool,
) -> None:
    """Interpolation (Figs. 5, 13): a row from one person to the next, with the similarity to both.

    --person shows the row that begins with this person.
    """
    options = given(steps=steps)
    shares = np.linspace(0.0, 1.0, count)
    with FaceGenerator(Pipeline.load(repository, threads=threads)) as generator:
        people = generator.people(photos)
        pairs = pairs_of(len(people))
        shown = rows_shown([people[a].name for a, _ in pairs], show, names)
        between = lerp if linear else slerp
        asked = np.stack([between(people[a].vector, people[b].vector, shares) for a, b in pairs])
        faces = generator.generate(asked.reshape(-1, asked.shape[-1]), seed, **options)
        images = faces.images.reshape(len(pairs), count, *faces.images.shape[1:])
        pictures = to_show(generator, images[shown], seed, super_resolution)
        notes = setting(generator, seed, options, super_resolution)
    found = faces.vectors.reshape(asked.shape)
    to_a = cosines(found, np.stack([people[a].vector for a, _ in pairs])[:, np.newaxis])
    to_b = cosines(found, np.stack([people[b].vector for _, b in pairs])[:, np.newaxis])
    blocks = []
    for row, images_of_row in zip(shown, pictures, strict=True):
        a, b = (people[one] for one in pairs[row])
        tiles = [
            Tile(image, f"{number(first, before=f'to {a.name}:')}\n{number(second, before=f'to {b.name}:')}")
            for image, first, second in zip(images_of_row, to_a[row], to_b[row], strict=True)
        ]
        row_of_tiles = [Tile(a.image, f"{a.name}\nphotograph"), *tiles, Tile(b.image, f"{b.name}\nphotograph")]
        blocks.append(grid([row_of_tiles], columns=["", *(f"t = {share:.2f}" for share in shares), ""]))
    told = " and ".join(f"from {people[pairs[row][0]].name} to {people[pairs[row][1]].name}" for row in shown)
    title = f"Interpolation {told}\n{notes} Below each image: cosine similarity of its ID vector to both people's."
    sheet = titled(below(*blocks), title)
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "path": "lerp" if linear else "slerp",
        "t": shares.tolist(),
        "pairs": [[people[a].name, people[b].name] for a, b in pairs],
        "to_first": listed(to_a),
        "to_second": listed(to_b),
        "to_asked": listed(faces.similarity.reshape(to_a.shape)),
        "correlation_with_t": {"to_first": correlation(to_a, shares), "to_second": correlation(to_b, shares)},
        "monotonic": {"to_first_falls": rising(-to_a), "to_second_rises": rising(to_b)},
    }
    first, second = mean(to_a, 0), mean(to_b, 0)
    effect = Effect(
        control=f"interpolation ({'lerp' if linear else 'slerp'})",
        change=f"t 0 -> 1 in {count} images, {len(pairs)} pairs",
        kept=f"{number(mean(faces.similarity))} to the vector between, {len(faces.images)} images",
        moved=(
            f"similarity to the first {number(first[0])} -> {number(first[-1])}, to the second {number(second[0])} -> "
            f"{number(second[-1])}; correlation with t {correlation(to_a, shares):.2f} and "
            f"{correlation(to_b, shares):.2f}; {number((rising(-to_a) + rising(to_b)) / 2, '.0%')} of the steps in the "
            "right direction"
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
