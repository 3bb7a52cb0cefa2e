"""Onto the first k principal axes: how many numbers of an ID vector make the person (paper, Fig. 15)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.evaluation.figures.commands import given
from id3pm.evaluation.figures.common import (
    bundle_option,
    cosines,
    enumerated,
    latent_options,
    listed,
    load_pca,
    mean,
    number,
    rising,
    rows_shown,
    setting,
    to_show,
)
from id3pm.evaluation.figures.generator import FaceGenerator
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.figures.output import Effect, save
from id3pm.pipeline import Pipeline

ENOUGH = 0.95
"""Share of the similarity with all axes that counts as the same person."""


@click.command("projection")
@latent_options(2)
@bundle_option
def projection_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    threads: int | None,
    show: int,
    names: tuple[str, ...],
    super_resolution: bool,
    bundle: Path,
) -> None:
    """Projection (Fig. 15): a row for each person, ID vectors projected onto 1, 2, 4, ... and all principal axes."""
    options = given(steps=steps)
    with FaceGenerator(Pipeline.load(repository, threads=threads)) as generator:
        pca = load_pca(bundle, generator)
        people = generator.people(photos)
        shown = rows_shown([one.name for one in people], show, names)
        counts = powers(len(pca.axes))
        asked = np.stack([[pca.project(one.vector, k) for k in counts] for one in people])
        faces = generator.generate(asked.reshape(-1, asked.shape[-1]), seed, **options)
        images = faces.images.reshape(*asked.shape[:2], *faces.images.shape[1:])
        pictures = to_show(generator, images[shown], seed, super_resolution)
        notes = setting(generator, seed, options, super_resolution)
    found = faces.vectors.reshape(asked.shape)
    targets = np.stack([one.vector for one in people])[:, np.newaxis]
    to_target, to_full = cosines(found, targets), cosines(found, found[:, -1:])
    vector_to_target = cosines(asked, targets)
    rows: list[list[Tile | None]] = []
    for person, images_of_row in zip(shown, pictures, strict=True):
        captions = [number(value, before="identity") for value in to_target[person]]
        # Of the last image, the similarity to itself says nothing.
        more = [number(value, before="to last") for value in to_full[person, :-1]]
        tiles = map(Tile, images_of_row, [*map("\n".join, zip(captions, more, strict=False)), captions[-1]])
        rows.append([Tile(people[person].image, f"{people[person].name}\nphotograph"), *tiles])
    title = (
        f"ID vectors of {enumerated([people[row].name for row in shown])}, projected onto the first k of "
        f"{len(pca.axes)} principal axes\n{notes} Below each image: cosine similarity of its ID vector to the "
        "person's, and to that of the last image."
    )
    sheet = grid(rows, title=title, columns=["", *(f"k = {k}" for k in counts)])
    means, full = mean(to_target, 0), mean(to_full, 0)
    enough = next((k for k, value in zip(counts, means, strict=True) if value >= ENOUGH * means[-1]), None)
    told = f"{ENOUGH:.0%} of it with k = {enough}" if enough else f"no face with k = {counts[-1]} to compare with"
    before_last = counts[-2:][0]
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
        kept=f"{number(means[0])} -> {number(means[-1])}; {told}, {len(faces.images)} images",
        moved=(
            f"similarity to the image of the whole vector {number(full[0])} at k = {counts[0]}, "
            f"{number(full[-2:][0])} at k = {before_last}; {number(rising(to_target), '.0%')} of the doublings bring "
            "the target nearer"
        ),
    )
    click.echo(save(out, "projection", sheet, [effect], report))


def powers(count: int) -> list[int]:
    """1, 2, 4, ... up to `count`, which comes last."""
    found = [1]
    while found[-1] * 2 < count:
        found.append(found[-1] * 2)
    return found if found[-1] == count else [*found, count]
