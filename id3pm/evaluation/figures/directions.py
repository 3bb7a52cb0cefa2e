"""Along custom directions, with what was labelled measured again on the images (paper, Figs. 6, 16 and 17)."""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.figures.commands import given, numbers
from id3pm.evaluation.figures.common import (
    Floats,
    bundle_option,
    correlation,
    cosines,
    end,
    enumerated,
    heading,
    latent_options,
    listed,
    load_directions,
    mean,
    number,
    rows_shown,
    setting,
    to_show,
    walks,
)
from id3pm.evaluation.figures.generator import FaceGenerator, GeneratedFaces, Person
from id3pm.evaluation.figures.grid import Tile, below, titled
from id3pm.evaluation.figures.labels import Labels
from id3pm.evaluation.figures.output import Effect, save
from id3pm.idspace.directions import Direction
from id3pm.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, eq=False)
class _Sweep:
    """All people at all strengths of one direction.

    Attributes:
        direction: Along which.
        images: uint8 [people, strengths, S, S, 3].
        kept: Similarity to the person, [people, strengths].
        values: Label -> what is measured on the images, [people, strengths].
        own: The direction's own label; or where that cannot be measured on pictures, the coordinate of the images' ID
            vectors along it, in steps.
        text: What `own` is, with its unit.
    """

    direction: Direction
    images: NDArray[np.uint8]
    kept: Floats
    values: dict[str, Floats]
    own: Floats
    text: str

    @property
    def right_way(self) -> tuple[int, int]:
        """For how many people the label grows from the first strength to the last, and how many show a face at both."""
        change = self.own[:, -1] - self.own[:, 0]
        return int(np.sum(change > 0)), int(np.sum(np.isfinite(change)))


@click.command("directions")
@latent_options(2)
@bundle_option
@click.option("--name", "wanted", multiple=True, help="A direction; may be repeated. Else all of the bundle.")
@click.option(
    "--strengths", callback=numbers, default="-5,-2.5,0,2.5,5", help="In steps: standard deviations of people."
)
@click.option("--orthogonal", is_flag=True, help="Take all other directions shown out of each.")
def directions_command(
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
    wanted: tuple[str, ...],
    strengths: tuple[float, ...],
    orthogonal: bool,
) -> None:
    """Custom directions (Figs. 16, 17): a row for each person and direction, from little of the label to much."""
    if len(strengths) < 3:
        raise click.BadParameter(f"--strengths: {len(strengths)} given: need three, to tell a trend from chance")
    options = given(steps=steps)
    near = int(np.argmin(np.abs(strengths)))
    with FaceGenerator(Pipeline.load(repository, threads=threads)) as generator:
        known = load_directions(bundle, generator)
        if unknown := set(wanted) - set(known):
            raise click.BadParameter(f"--name {min(unknown)}: choose one of {', '.join(known)}")
        chosen = [known[name] for name in wanted or known]
        if orthogonal:
            chosen = [one.orthogonal_to(*(other for other in chosen if other is not one)) for one in chosen]
        people = generator.people(photos)
        shown = rows_shown([one.name for one in people], show, names)
        labels = Labels([one.card.name for one in chosen], threads)
        sweeps = [_sweep(generator, labels, direction, people, strengths, seed, options) for direction in chosen]
        # The middle picture is the same along all directions, so it is shown once for each person.
        apart = [n for n in range(len(strengths)) if n != near]
        pictures = [to_show(generator, sweep.images[shown][:, apart], seed, super_resolution) for sweep in sweeps]
        first = sweeps[0]
        middle = to_show(generator, first.images[shown, near], seed, super_resolution)
        notes = setting(generator, seed, options, super_resolution)
    blocks = []
    for place, person in enumerate(shown):
        rows: list[list[Tile | None]] = [
            [
                Tile(picture, f"{_measured(sweep, person, n)}\n{number(sweep.kept[person, n], before='identity')}")
                for n, picture in zip(apart, pictures[row][place], strict=True)
            ]
            for row, sweep in enumerate(sweeps)
        ]
        blocks.append(
            walks(
                people[person],
                Tile(
                    middle[place],
                    f"{strengths[near]:g}{'' if strengths[near] else ': unchanged'}\n"
                    f"{number(first.kept[person, near], before='identity')}",
                ),
                rows,
                columns=[heading(strengths[n]) for n in apart],
                labels=[_label(sweep, person, near) for sweep in sweeps],
                ends=[(end(card.low, "left"), end(card.high, "right")) for card in (one.card for one in chosen)],
            )
        )
    title = (
        f"Custom directions, from {enumerated([people[row].name for row in shown])}\n{notes} Columns: strength in "
        "standard deviations of people. Below each image: what was labelled, measured again on it, and the cosine "
        "similarity of its ID vector to the person's."
    )
    sheet = titled(below(*blocks), title)
    report: dict[str, Any] = {
        "seed": seed,
        "options": options,
        "strengths": list(strengths),
        "orthogonal": orthogonal,
        "people": [one.name for one in people],
        "directions": {sweep.direction.card.name: _numbers(sweep, strengths) for sweep in sweeps},
        "crosstalk": crosstalk({sweep.direction.card.name: sweep.values for sweep in sweeps}),
    }
    effects = [_effect(sweep, strengths, orthogonal, report["crosstalk"]) for sweep in sweeps]
    click.echo(save(out, "directions_orthogonal" if orthogonal else "directions", sheet, effects, report))


def _sweep(
    generator: FaceGenerator,
    labels: Labels,
    direction: Direction,
    people: list[Person],
    strengths: tuple[float, ...],
    seed: int,
    options: dict[str, Any],
) -> _Sweep:
    targets = np.stack([person.vector for person in people])
    asked = np.stack([direction.apply(target, strengths) for target in targets])
    faces = generator.generate(asked.reshape(-1, asked.shape[-1]), seed, **options)
    shape = asked.shape[:2]
    found = labels.measure(faces.images, faces.detections)
    values = {name: value.reshape(shape) for name, value in found.items()}
    name = direction.card.name
    own = values[name] if name in values else _coordinates(direction, faces).reshape(shape)
    return _Sweep(
        direction=direction,
        images=faces.images.reshape(*shape, *faces.images.shape[1:]),
        kept=cosines(faces.vectors.reshape(asked.shape), targets[:, np.newaxis]),
        values=values,
        own=own,
        text=labels.text(name) if name in values else "ID vectors of the images along it, steps",
    )


def _coordinates(direction: Direction, faces: GeneratedFaces) -> Floats:
    known = np.isfinite(faces.similarity)
    result = np.full(len(known), np.nan)
    if known.any():
        result[known] = direction.coordinate(faces.vectors[known])
    return result


def crosstalk(values: dict[str, dict[str, Floats]]) -> dict[str, dict[str, float]]:
    """How much each direction moves the labels of the others.

    Args:
        values: Direction -> label -> [people, strengths].

    Returns:
        Direction -> label of another direction -> its change from the first strength to the last, as a share of what
        that label's own direction makes it change; NaN where that is nothing, or no face was found.
    """

    def change(direction: str, label: str) -> float:
        found = values[direction][label]
        return float(mean(found[:, -1] - found[:, 0]))

    def share(direction: str, label: str) -> float:
        own = change(label, label)
        return change(direction, label) / own if own else float("nan")

    measured = [name for name in values if name in values[name]]
    return {
        direction: {label: share(direction, label) for label in measured if label != direction} for direction in values
    }


def _value(value: float) -> str:
    if np.isnan(value):
        return "no face"
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _measured(sweep: _Sweep, person: int, strength: int) -> str:
    value = sweep.own[person, strength]
    return "no face" if np.isnan(value) else f"{_words(sweep.direction.card.name)} {_value(value)}"


def _label(sweep: _Sweep, person: int, near: int) -> str:
    card = sweep.direction.card
    lines = [_words(card.name), *textwrap.wrap(sweep.text, 22), f"unchanged: {_value(sweep.own[person, near])}"]
    return "\n".join(lines)


def _numbers(sweep: _Sweep, strengths: tuple[float, ...]) -> dict[str, Any]:
    own = sweep.own
    return {
        "card": dataclasses.asdict(sweep.direction.card),
        "measured": sweep.text,
        "values": listed(own),
        "to_person": listed(sweep.kept),
        "correlation_with_strength": correlation(own, np.array(strengths)),
        "right_way": list(sweep.right_way),
    }


def _effect(
    sweep: _Sweep, strengths: tuple[float, ...], orthogonal: bool, shares: dict[str, dict[str, float]]
) -> Effect:
    card, own, kept = sweep.direction.card, sweep.own, sweep.kept
    right, people = sweep.right_way
    near = int(np.argmin(np.abs(strengths)))
    moved = (
        f"{sweep.text}: {_value(mean(own[:, 0]))} -> {_value(mean(own[:, near]))} -> {_value(mean(own[:, -1]))}; "
        f"correlation with the strength {correlation(own, np.array(strengths)):.2f}; "
        f"right way for {right} of {people} people"
    )
    if others := {name: value for name, value in shares[card.name].items() if np.isfinite(value)}:
        worst = max(others, key=lambda name: abs(others[name]))
        moved += f"; most of the others moves {worst}, {others[worst]:+.0%} of what its own direction does"
    told = ""
    if card.score is not None:
        low, high = card.score.accuracy_interval
        told = f" (accuracy {card.score.accuracy:.3f}, {low:.3f} .. {high:.3f})"
    return Effect(
        control=f"direction {card.name}{' without the others' if orthogonal else ''}{told}",
        change=f"{strengths[0]:+g} -> {strengths[-1]:+g} standard deviations, {len(own)} people",
        kept=(
            f"{number(mean(kept[:, near]))} at {strengths[near]:g}, {number(mean(kept[:, 0]))} and "
            f"{number(mean(kept[:, -1]))} at the ends, {kept.size} images"
        ),
        moved=moved,
    )
