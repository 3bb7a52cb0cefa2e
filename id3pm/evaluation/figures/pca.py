"""Along the principal axes of ID vectors (paper, Fig. 14; supplement 5.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.evaluation.figures.commands import given, numbers
from id3pm.evaluation.figures.common import (
    bundle_option,
    cosines,
    end,
    enumerated,
    heading,
    latent_options,
    listed,
    load_pca,
    mean,
    number,
    rows_shown,
    setting,
    slope,
    to_show,
    walks,
)
from id3pm.evaluation.figures.generator import FaceGenerator
from id3pm.evaluation.figures.grid import Tile, below, titled
from id3pm.evaluation.figures.output import Effect, save
from id3pm.pipeline import Pipeline


@click.command("pca")
@latent_options(2)
@bundle_option
@click.option("--axes", type=click.IntRange(1), default=3, help="The first so many.")
@click.option("--amounts", callback=numbers, default="-0.8,-0.4,0,0.4,0.8", help="In L2 norms of the ID vector.")
@click.option(
    "--ends",
    multiple=True,
    metavar="LOW,HIGH",
    help="What the first axis leads to, as seen in a sheet before; repeats for the second one, and so on.",
)
def pca_command(
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
    axes: int,
    amounts: tuple[float, ...],
    ends: tuple[str, ...],
) -> None:
    """Principal axes (Fig. 14): a row for each person and axis, steps in L2 norms of the ID vector."""
    options = given(steps=steps)
    words = [text.partition(",")[::2] for text in ends]
    if len(words) > axes or not all(low and high for low, high in words):
        raise click.BadParameter(f"--ends {' --ends '.join(ends)}: give LOW,HIGH for each of {axes} axes, or fewer")
    with FaceGenerator(Pipeline.load(repository, threads=threads)) as generator:
        pca = load_pca(bundle, generator)
        people = generator.people(photos)
        shown = rows_shown([one.name for one in people], show, names)
        # [people, axes, amounts, D]
        asked = np.stack([[pca.walk(one.vector, axis, amounts) for axis in range(axes)] for one in people])
        faces = generator.generate(asked.reshape(-1, asked.shape[-1]), seed, **options)
        found = faces.vectors.reshape(asked.shape)
        targets = np.stack([one.vector for one in people])
        start = generator.generate(targets, seed, **options)
        images = faces.images.reshape(*asked.shape[:3], *faces.images.shape[1:])
        apart = [n for n, amount in enumerate(amounts) if amount]  # where 0 leads is shown once for each person
        pictures = to_show(generator, images[shown][:, :, apart], seed, super_resolution)
        unchanged = to_show(generator, start.images[shown], seed, super_resolution)
        notes = setting(generator, seed, options, super_resolution)
    to_person = cosines(found, targets[:, np.newaxis, np.newaxis])
    # How far along its axis each image lies from the image of the person's own vector, against what was asked for.
    origin = coordinates_of(pca, start.vectors)[:, np.newaxis, np.newaxis]
    moved = coordinates_of(pca, found) - origin
    wanted = pca.coordinates(asked) - pca.coordinates(targets)[:, None, None]
    along = np.stack([moved[:, axis, :, axis] for axis in range(axes)], axis=1)  # [people, axes, amounts]
    along_wanted = np.stack([wanted[:, axis, :, axis] for axis in range(axes)], axis=1)
    others = np.stack([np.delete(moved[:, axis, :, :axes], axis, axis=-1) for axis in range(axes)], axis=1)
    blocks = []
    for place, person in enumerate(shown):
        rows: list[list[Tile | None]] = [
            [
                Tile(
                    picture,
                    f"{number(along[person, axis, n], '+.2f', 'moved')}\n"
                    f"{number(to_person[person, axis, n], before='identity')}",
                )
                for n, picture in zip(apart, pictures[place, axis], strict=True)
            ]
            for axis in range(axes)
        ]
        blocks.append(
            walks(
                people[person],
                Tile(unchanged[place], f"0: unchanged\n{number(start.similarity[person], before='identity')}"),
                rows,
                columns=[heading(amounts[n]) for n in apart],
                labels=[f"axis {axis + 1}\n{pca.explained[axis]:.1%} of variance" for axis in range(axes)],
                ends=[(end(low, "left"), end(high, "right")) for low, high in words],
            )
        )
    title = (
        f"Principal axes of ID vectors, from {enumerated([people[row].name for row in shown])}\n{notes} Columns: "
        "step in L2 norms of the ID vector. Below each image: how far its own ID vector moved along the axis, and its "
        "cosine similarity to the person's."
    )
    sheet = titled(below(*blocks), title)
    got = [slope(along_wanted[:, axis], along[:, axis]) for axis in range(axes)]
    aside = [float(mean(np.abs(others[:, axis]))) for axis in range(axes)] if axes > 1 else []
    whole = [float(mean(along[:, axis, -1] - along[:, axis, 0])) for axis in range(axes)]
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
                f"{number(mean(to_person[:, axis, near]))} at {amounts[near]:g}, {number(mean(to_person[:, axis, 0]))} "
                f"and {number(mean(to_person[:, axis, -1]))} at the ends, {len(people) * len(amounts)} images"
            ),
            moved=(
                f"ID vectors of the images by {number(whole[axis], '+.2f')} along the axis, "
                f"{number(got[axis], '.0%')} of what was asked"
                + (f"; along the other {axes - 1} shown by {number(aside[axis])}" if axes > 1 else "")
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
