"""Projection onto the first k principal axes: how many are needed for the identity (paper, Fig. 15)."""

from __future__ import annotations

import click
import numpy as np
from numpy.typing import NDArray

from id3pm.command_options import takes
from id3pm.evaluation.figures.common import Floats, cosines, enumerated, listed, mean, number, rising
from id3pm.evaluation.figures.generator import Person
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.figures.sheet import BundleOptions, Effect

ENOUGH = 0.95
"""Share of the similarity with all axes that counts as the same person."""


@click.command("projection")
@takes(BundleOptions)
def projection_command(options: BundleOptions) -> None:
    """Projection (Fig. 15): a row for each person, ID vectors projected onto 1, 2, 4, ... and all principal axes."""
    with options.session() as session:
        pca = session.pca(options.bundle)
        shown, counts = session.shown(), powers(len(pca.axes))
        requested = np.stack([[pca.project(one.vector, k) for k in counts] for one in session.people])
        faces = session.generate(requested)
        pictures = session.to_show(faces.images[shown])
        title = (
            f"ID vectors of {enumerated([session.names[row] for row in shown])}, projected onto the first k of "
            f"{len(pca.axes)} principal axes\n{session.notes()} Below each image: cosine similarity of its ID vector "
            "to the person's, and to that of the last image."
        )
    targets = session.targets[:, np.newaxis]
    to_target, to_full = cosines(faces.vectors, targets), cosines(faces.vectors, faces.vectors[:, -1:])
    rows = [
        _row(session.people[row], images, to_target[row], to_full[row])
        for row, images in zip(shown, pictures, strict=True)
    ]
    sheet = grid(rows, title=title, columns=["", *(f"k = {k}" for k in counts)])
    means = mean(to_target, 0)
    enough = next((k for k, value in zip(counts, means, strict=True) if value >= ENOUGH * means[-1]), None)
    numbers = {
        "seed": options.seed,
        "k": counts,
        "people": session.names,
        "to_target": listed(to_target),
        "to_full_image": listed(to_full),
        "vector_to_target": listed(cosines(requested, targets)),
        "explained": [float(pca.explained[:k].sum()) for k in counts],
        "enough": enough,
        "trained_on": pca.trained_on,
    }
    options.write("projection", sheet, [_effect(counts, to_target, mean(to_full, 0), enough)], numbers)


def _row(person: Person, images: NDArray[np.uint8], to_target: Floats, to_full: Floats) -> list[Tile | None]:
    captions = [number(value, before="identity") for value in to_target]
    # Of the last image, the similarity to itself says nothing.
    more = [number(value, before="to last") for value in to_full[:-1]]
    tiles = map(Tile, images, [*map("\n".join, zip(captions, more, strict=False)), captions[-1]])
    return [Tile(person.image, f"{person.name}\nphotograph"), *tiles]


def _effect(counts: list[int], to_target: Floats, full: Floats, enough: int | None) -> Effect:
    means = mean(to_target, 0)
    told = f"{ENOUGH:.0%} of it with k = {enough}" if enough else f"no face with k = {counts[-1]} to compare with"
    return Effect(
        control="projection onto k principal axes",
        change=f"k {counts[0]} -> {counts[-1]}, {len(to_target)} people",
        kept=f"{number(means[0])} -> {number(means[-1])}; {told}, {to_target.size} images",
        moved=(
            f"similarity to the image of the whole vector {number(full[0])} at k = {counts[0]}, "
            f"{number(full[-2:][0])} at k = {counts[-2:][0]}; {number(rising(to_target), '.0%')} of the doublings "
            "bring the target nearer"
        ),
    )


def powers(count: int) -> list[int]:
    """1, 2, 4, ... up to `count`, which comes last."""
    found = [1]
    while found[-1] * 2 < count:
        found.append(found[-1] * 2)
    return found if found[-1] == count else [*found, count]
