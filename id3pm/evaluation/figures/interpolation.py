"""From one person to another along the great circle between their ID vectors (paper, Figs. 5, 13; supplement 5.3)."""

from __future__ import annotations

from collections.abc import Sequence
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
from id3pm.idspace.vectors import lerp, slerp
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

    Measured are neighbours in the row of all people. --person A --person B shows the row from A to B instead of the
    first ones, a third --person another row, from B to C; a single one the row that begins with it.
    """
    options = given(steps=steps)
    shares = np.linspace(0.0, 1.0, count)
    with FaceGenerator(Pipeline.load(repository, threads=threads)) as generator:
        people = generator.people(photos)
        pairs = pairs_of(len(people))
        measured = len(pairs)
        pairs, shown = pairs_shown([person.name for person in people], pairs, show, names)
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
    pairs, to_a, to_b = pairs[:measured], to_a[:measured], to_b[:measured]
    to_asked = faces.similarity.reshape(len(found), count)[:measured]
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "path": "lerp" if linear else "slerp",
        "t": shares.tolist(),
        "pairs": [[people[a].name, people[b].name] for a, b in pairs],
        "to_first": listed(to_a),
        "to_second": listed(to_b),
        "to_asked": listed(to_asked),
        "correlation_with_t": {"to_first": correlation(to_a, shares), "to_second": correlation(to_b, shares)},
        "monotonic": {"to_first_falls": rising(-to_a), "to_second_rises": rising(to_b)},
    }
    first, second = mean(to_a, 0), mean(to_b, 0)
    effect = Effect(
        control=f"interpolation ({'lerp' if linear else 'slerp'})",
        change=f"t 0 -> 1 in {count} images, {len(pairs)} pairs",
        kept=f"{number(mean(to_asked))} to the vector between, {to_asked.size} images",
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


def pairs_shown(
    people: Sequence[str], pairs: Sequence[tuple[int, int]], count: int, names: Sequence[str]
) -> tuple[list[tuple[int, int]], list[int]]:
    """The pairs to draw, those that are shown but not among the given ones at the end, and which of them are shown.

    Args:
        people: Names.
        pairs: What is measured.
        count: How many are shown where none is asked for.
        names: People of the picture: from the first to the second, from the second to the third, and so on.

    Raises:
        click.BadParameter: No person has a name, or a row would lead from a person to the same.
    """
    if len(names) < 2:
        return list(pairs), rows_shown([people[a] for a, _ in pairs], count, names)
    row = rows_shown(people, count, names)
    asked = list(zip(row[:-1], row[1:], strict=True))
    if any(a == b for a, b in asked):
        raise click.BadParameter(f"--person {', '.join(names)}: a row leads from one person to another")
    drawn = [*pairs, *dict.fromkeys(pair for pair in asked if pair not in pairs)]
    return drawn, [drawn.index(pair) for pair in asked]
