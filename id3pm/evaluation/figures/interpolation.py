"""Interpolation along the great circle between two ID vectors (paper, Figs. 5, 13; supplement 5.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.command_options import option, takes
from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.common import Floats, correlation, cosines, listed, mean, number, rising
from id3pm.evaluation.figures.generator import Person
from id3pm.evaluation.figures.grid import Tile, below, grid
from id3pm.evaluation.figures.sheet import Effect, LatentOptions, Session, rows_shown
from id3pm.idspace.vectors import lerp, slerp


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterpolationOptions(LatentOptions):
    """The options of `id3pm sheet interpolation`."""

    show: int = option(type=click.IntRange(1), default=2, help="How many pairs the picture shows.")
    count: int = option(type=click.IntRange(3), default=7, help="Images from one end to the other.")
    linear: bool = option(is_flag=True, help="Along the chord instead of the great circle.")

    @property
    def shares(self) -> Floats:
        """How far from the first person each image is, 0 .. 1, [T]."""
        return np.linspace(0.0, 1.0, self.count)


@dataclasses.dataclass(frozen=True, eq=False)
class _Paths:
    """Images from one person to another.

    Attributes:
        pairs: Both people of each path.
        measured: How many paths, the first ones, count for the effect.
        pictures: Of the paths that are shown: row in `pairs`, and uint8 [T, S, S, 3].
        to_first: Similarity of the images to the first person, [pairs, T].
        to_second: To the second person.
        to_asked: To the ID vector between them.
        notes: See `Session.notes`.
    """

    pairs: list[tuple[Person, Person]]
    measured: int
    pictures: list[tuple[int, NDArray[np.uint8]]]
    to_first: Floats
    to_second: Floats
    to_asked: Floats
    notes: str


@click.command("interpolation")
@takes(InterpolationOptions)
def interpolation_command(options: InterpolationOptions) -> None:
    """Interpolation (Figs. 5, 13): a row from one person to the next, with the similarity to both.

    Measured are neighbours in the row of all people. --person A --person B shows the row from A to B instead of the
    first ones, a third --person another row, from B to C; a single one the row that begins with it.
    """
    with options.session() as session:
        paths = _generate(session, options)
    sheet = _sheet(paths, options.shares)
    count = paths.measured
    pairs, to_a, to_b = paths.pairs[:count], paths.to_first[:count], paths.to_second[:count]
    to_asked, shares = paths.to_asked[:count], options.shares
    numbers = {
        "seed": options.seed,
        "path": "lerp" if options.linear else "slerp",
        "t": shares.tolist(),
        "pairs": [[a.name, b.name] for a, b in pairs],
        "to_first": listed(to_a),
        "to_second": listed(to_b),
        "to_asked": listed(to_asked),
        "correlation_with_t": {"to_first": correlation(to_a, shares), "to_second": correlation(to_b, shares)},
        "monotonic": {"to_first_falls": rising(-to_a), "to_second_rises": rising(to_b)},
    }
    first, second = mean(to_a, 0), mean(to_b, 0)
    effect = Effect(
        control=f"interpolation ({numbers['path']})",
        change=f"t 0 -> 1 in {options.count} images, {count} pairs",
        kept=f"{number(mean(to_asked))} to the vector between, {to_asked.size} images",
        moved=(
            f"similarity to the first {number(first[0])} -> {number(first[-1])}, to the second {number(second[0])} -> "
            f"{number(second[-1])}; correlation with t {correlation(to_a, shares):.2f} and "
            f"{correlation(to_b, shares):.2f}; {number((rising(-to_a) + rising(to_b)) / 2, '.0%')} of the steps in the "
            "right direction"
        ),
    )
    options.write("interpolation", sheet, [effect], numbers)


def _generate(session: Session, options: InterpolationOptions) -> _Paths:
    circle = pairs_of(len(session.people))
    drawn, shown = pairs_shown(session.names, circle, options.show, options.names)
    pairs = [(session.people[a], session.people[b]) for a, b in drawn]
    between = lerp if options.linear else slerp
    requested = np.stack([between(a.vector, b.vector, options.shares) for a, b in pairs])
    faces = session.generate(requested)
    return _Paths(
        pairs=pairs,
        measured=len(circle),
        pictures=list(zip(shown, session.to_show(faces.images[shown]), strict=True)),
        to_first=cosines(faces.vectors, np.stack([a.vector for a, _ in pairs])[:, np.newaxis]),
        to_second=cosines(faces.vectors, np.stack([b.vector for _, b in pairs])[:, np.newaxis]),
        to_asked=np.asarray(faces.similarity, np.float64),
        notes=session.notes(),
    )


def _sheet(paths: _Paths, shares: Floats) -> Image.Image:
    blocks = []
    for row, images in paths.pictures:
        a, b = paths.pairs[row]
        tiles = [
            Tile(image, f"{number(first, before=f'to {a.name}:')}\n{number(second, before=f'to {b.name}:')}")
            for image, first, second in zip(images, paths.to_first[row], paths.to_second[row], strict=True)
        ]
        ends = [Tile(person.image, f"{person.name}\nphotograph") for person in (a, b)]
        blocks.append(grid([[ends[0], *tiles, ends[1]]], columns=["", *(f"t = {share:.2f}" for share in shares), ""]))
    told = " and ".join("from {} to {}".format(*(one.name for one in paths.pairs[row])) for row, _ in paths.pictures)
    return below(
        *blocks,
        title=f"Interpolation {told}\n{paths.notes} Below each image: cosine similarity of its ID vector to both "
        "people's.",
    )


def pairs_of(count: int) -> list[tuple[int, int]]:
    """Neighbours in a circle of people; first those without a person in common.

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
        pairs: The measured pairs.
        count: How many are shown where no names are given.
        names: People of the picture: from the first to the second, from the second to the third, and so on.

    Raises:
        click.BadParameter: No person has a name, or a row would lead from a person to the same.
    """
    if len(names) < 2:
        return list(pairs), rows_shown([people[a] for a, _ in pairs], count, names)
    row = rows_shown(people, count, names)
    requested = list(zip(row[:-1], row[1:], strict=True))
    if any(a == b for a, b in requested):
        raise click.BadParameter(f"--person {', '.join(names)}: a row leads from one person to another")
    drawn = [*pairs, *dict.fromkeys(pair for pair in requested if pair not in pairs)]
    return drawn, [drawn.index(pair) for pair in requested]
