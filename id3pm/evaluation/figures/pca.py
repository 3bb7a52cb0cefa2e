"""Steps along the principal axes of ID vectors (paper, Fig. 14; supplement 5.4)."""

from __future__ import annotations

import dataclasses

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.command_options import numbers, option, takes
from id3pm.evaluation.figures.common import (
    Floats,
    Numbers,
    cosines,
    end,
    enumerated,
    heading,
    listed,
    mean,
    number,
    slope,
    walks,
)
from id3pm.evaluation.figures.generator import GeneratedFaces
from id3pm.evaluation.figures.grid import Tile, below
from id3pm.evaluation.figures.sheet import BundleOptions, Effect, Session
from id3pm.idspace.pca import Pca


@dataclasses.dataclass(frozen=True, kw_only=True)
class PcaOptions(BundleOptions):
    """The options of `id3pm sheet pca`."""

    axes: int = option(type=click.IntRange(1), default=3, help="The first so many.")
    amounts: tuple[float, ...] = option(
        callback=numbers(), default="-0.8,-0.4,0,0.4,0.8", help="In L2 norms of the ID vector."
    )
    ends: tuple[str, ...] = option(
        multiple=True,
        metavar="LOW,HIGH",
        help="What the first axis leads to, as seen in a sheet before; repeats for the second one, and so on.",
    )

    @property
    def words(self) -> list[tuple[str, str]]:
        """Both ends of each axis that `ends` names.

        Raises:
            click.BadParameter: They name more axes than there are, or one end of an axis.
        """
        words = [(low, high) for low, _, high in (text.partition(",") for text in self.ends)]
        if len(words) > self.axes or not all(low and high for low, high in words):
            raise click.BadParameter(
                f"--ends {' --ends '.join(self.ends)}: give LOW,HIGH for each of {self.axes} axes, or fewer"
            )
        return words


@dataclasses.dataclass(frozen=True, eq=False)
class _Walks:
    """The images along the axes and what they measure, [people, axes, amounts].

    Attributes:
        start: The faces of the people's own ID vectors, [people].
        to_person: Similarity of each image to the person.
        wanted: How far along its axis each ID vector lies from the person's, in L2 norms.
        moved: The same of the images' ID vectors, from that of the image of the person's own vector.
        aside: How far those of the images moved along the other axes, [people, axes, amounts, axes - 1].
    """

    start: GeneratedFaces
    to_person: Floats
    wanted: Floats
    moved: Floats
    aside: Floats


@click.command("pca")
@takes(PcaOptions)
def pca_command(options: PcaOptions) -> None:
    """Principal axes (Fig. 14): a row for each person and axis, steps in L2 norms of the ID vector."""
    words = options.words
    with options.session() as session:
        pca = session.pca(options.bundle)
        shown = session.shown()
        requested = np.stack(
            [[pca.walk(one.vector, axis, options.amounts) for axis in range(options.axes)] for one in session.people]
        )
        faces = session.generate(requested)
        measured = _measure(pca, session, requested, faces)
        apart = [n for n, amount in enumerate(options.amounts) if amount]  # where 0 leads is shown once for each person
        pictures = session.to_show(faces.images[shown][:, :, apart])
        unchanged = session.to_show(measured.start.images[shown])
        title = (
            f"Principal axes of ID vectors, from {enumerated([session.names[row] for row in shown])}\n"
            f"{session.notes()} Columns: step in L2 norms of the ID vector. Below each image: how far its own ID "
            "vector moved along the axis, and its cosine similarity to the person's."
        )
    blocks = []
    for place, row in enumerate(shown):
        blocks.append(
            walks(
                session.people[row],
                Tile(unchanged[place], f"0: unchanged\n{number(measured.start.similarity[row], before='identity')}"),
                _tiles(measured, row, apart, pictures[place]),
                columns=[heading(options.amounts[n]) for n in apart],
                labels=[f"axis {axis + 1}\n{pca.explained[axis]:.1%} of variance" for axis in range(options.axes)],
                ends=[(end(low, "left"), end(high, "right")) for low, high in words],
            )
        )
    _write(options, below(*blocks, title=title), pca, session.names, measured)


def _measure(pca: Pca, session: Session, requested: NDArray[np.float32], faces: GeneratedFaces) -> _Walks:
    people, axes = session.targets, range(requested.shape[1])
    start = session.generate(people)
    moved = coordinates_of(pca, faces.vectors) - coordinates_of(pca, start.vectors)[:, None, None]
    wanted = pca.coordinates(requested) - pca.coordinates(people)[:, None, None]
    return _Walks(
        start=start,
        to_person=cosines(faces.vectors, people[:, None, None]),
        wanted=np.stack([wanted[:, axis, :, axis] for axis in axes], axis=1),
        moved=np.stack([moved[:, axis, :, axis] for axis in axes], axis=1),
        aside=np.stack([np.delete(moved[:, axis, :, : len(axes)], axis, axis=-1) for axis in axes], axis=1),
    )


def _tiles(measured: _Walks, row: int, apart: list[int], pictures: NDArray[np.uint8]) -> list[list[Tile | None]]:
    return [
        [
            Tile(
                picture,
                f"{number(measured.moved[row, axis, n], '+.2f', 'moved')}\n"
                f"{number(measured.to_person[row, axis, n], before='identity')}",
            )
            for n, picture in zip(apart, images, strict=True)
        ]
        for axis, images in enumerate(pictures)
    ]


def _write(options: PcaOptions, sheet: Image.Image, pca: Pca, names: list[str], measured: _Walks) -> None:
    axes, amounts, moved, to_person = options.axes, options.amounts, measured.moved, measured.to_person
    got = [slope(measured.wanted[:, axis], moved[:, axis]) for axis in range(axes)]
    aside = [mean(np.abs(measured.aside[:, axis])) for axis in range(axes)] if axes > 1 else []
    report = {
        "seed": options.seed,
        "amounts": list(amounts),
        "people": names,
        "explained": pca.explained[:axes].tolist(),
        "asked_along_axis": listed(measured.wanted),
        "moved_along_axis": listed(moved),
        "to_person": listed(to_person),
        "got_of_asked": got,
        "moved_along_others": aside,
        "trained_on": pca.trained_on,
    }
    near = int(np.argmin(np.abs(amounts)))
    effects = [
        Effect(
            control=f"principal axis {axis + 1}",
            change=f"{amounts[0]:+g} -> {amounts[-1]:+g} L2 norms, {len(names)} people",
            kept=(
                f"{number(mean(to_person[:, axis, near]))} at {amounts[near]:g}, {number(mean(to_person[:, axis, 0]))} "
                f"and {number(mean(to_person[:, axis, -1]))} at the ends, {len(names) * len(amounts)} images"
            ),
            moved=(
                f"ID vectors of the images by {number(mean(moved[:, axis, -1] - moved[:, axis, 0]), '+.2f')} along the "
                f"axis, {number(got[axis], '.0%')} of what was asked"
                + (f"; along the other {axes - 1} shown by {number(aside[axis])}" if axes > 1 else "")
            ),
        )
        for axis in range(axes)
    ]
    options.write("pca", sheet, effects, report)


def coordinates_of(pca: Pca, vectors: Numbers) -> Floats:
    """`Pca.coordinates` of vectors [..., D], NaN where they are NaN."""
    known = np.isfinite(vectors).all(axis=-1)
    result = np.full((*vectors.shape[:-1], len(pca.axes)), np.nan)
    if known.any():
        result[known] = pca.coordinates(vectors[known])
    return result
