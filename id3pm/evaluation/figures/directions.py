"""Steps along custom directions, with the label measured again on the images (paper, Figs. 6, 16 and 17)."""

from __future__ import annotations

import dataclasses
import textwrap

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.command_options import numbers, option, takes
from id3pm.evaluation.figures.common import (
    Floats,
    correlation,
    cosines,
    end,
    enumerated,
    heading,
    listed,
    mean,
    number,
    walks,
)
from id3pm.evaluation.figures.generator import GeneratedFaces, Person
from id3pm.evaluation.figures.grid import Tile, below
from id3pm.evaluation.figures.labels import Labels
from id3pm.evaluation.figures.sheet import BundleOptions, Effect, Session
from id3pm.face.detect import DETECTION_SIZE
from id3pm.idspace.directions import Direction, Directions


@dataclasses.dataclass(frozen=True, eq=False)
class _Sweep:
    """All people at all strengths of one direction.

    Attributes:
        direction: The direction.
        images: uint8 [people, strengths, S, S, 3].
        kept: Similarity to the person, [people, strengths].
        values: Label -> measurements on the images, [people, strengths].
        own: The direction's own label; or where that cannot be measured on pictures, the coordinate of the images' ID
            vectors along it, in steps.
        text: Description of `own`, with its unit.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectionsOptions(BundleOptions):
    """The options of `id3pm sheet directions`."""

    wanted: tuple[str, ...] = option(
        "--name", multiple=True, help="A direction; may be repeated. Else all of the bundle."
    )
    strengths: tuple[float, ...] = option(
        callback=numbers(), default="-5,-2.5,0,2.5,5", help="In steps: standard deviations of people."
    )
    orthogonal: bool = option(is_flag=True, help="Take all other directions shown out of each.")

    @property
    def near(self) -> int:
        """Place of the strength that is nearest to 0."""
        return int(np.argmin(np.abs(self.strengths)))

    def chosen(self, known: Directions) -> list[Direction]:
        """The directions of the sheet.

        Raises:
            click.BadParameter: The bundle does not have one of the names.
        """
        if unknown := set(self.wanted) - set(known):
            raise click.BadParameter(f"--name {min(unknown)}: choose one of {', '.join(known)}")
        chosen = [known[name] for name in self.wanted or known]
        if not self.orthogonal:
            return chosen
        return [one.orthogonal_to(*(other for other in chosen if other is not one)) for one in chosen]


@click.command("directions")
@takes(DirectionsOptions)
def directions_command(options: DirectionsOptions) -> None:
    """Custom directions (Figs. 16, 17): a row for each person and direction, from little of the label to much."""
    strengths, near = options.strengths, options.near
    if len(strengths) < 3:
        raise click.BadParameter(f"--strengths: {len(strengths)} given: need three, to tell a trend from chance")
    with options.session() as session:
        chosen = options.chosen(session.directions(options.bundle))
        shown = session.shown()
        labels = Labels([one.card.name for one in chosen], options.threads)
        sweeps = [_sweep(session, labels, direction, strengths) for direction in chosen]
        # The middle picture is the same along all directions, so it is shown once for each person.
        apart = [n for n in range(len(strengths)) if n != near]
        pictures = [session.to_show(sweep.images[shown][:, apart]) for sweep in sweeps]
        middle = session.to_show(sweeps[0].images[shown, near])
        title = (
            f"Custom directions, from {enumerated([session.names[row] for row in shown])}\n{session.notes()} Columns: "
            "strength in standard deviations of people. Below each image: what was labelled, measured again on it, "
            "and the cosine similarity of its ID vector to the person's."
        )
    blocks = [
        _block(options, sweeps, session.people[row], row, middle[place], [images[place] for images in pictures])
        for place, row in enumerate(shown)
    ]
    shares = crosstalk({sweep.direction.card.name: sweep.values for sweep in sweeps})
    report = {
        "seed": options.seed,
        "strengths": list(strengths),
        "orthogonal": options.orthogonal,
        "people": session.names,
        "directions": {sweep.direction.card.name: _numbers(sweep, strengths) for sweep in sweeps},
        "crosstalk": shares,
    }
    effects = [_effect(sweep, options, shares) for sweep in sweeps]
    name = "directions_orthogonal" if options.orthogonal else "directions"
    options.write(name, below(*blocks, title=title), effects, report)


def _sweep(session: Session, labels: Labels, direction: Direction, strengths: tuple[float, ...]) -> _Sweep:
    targets = session.targets
    requested = np.stack([direction.apply(target, strengths) for target in targets])
    faces = session.generate(requested)
    shape = requested.shape[:2]
    found = labels.measure(
        faces.images.reshape(-1, *faces.images.shape[2:]), faces.detections.reshape(-1, DETECTION_SIZE)
    )
    values = {name: value.reshape(shape) for name, value in found.items()}
    name = direction.card.name
    return _Sweep(
        direction=direction,
        images=faces.images,
        kept=cosines(faces.vectors, targets[:, np.newaxis]),
        values=values,
        own=values[name] if name in values else _coordinates(direction, faces),
        text=labels.text(name) if name in values else "ID vectors of the images along it, steps",
    )


def _block(
    options: DirectionsOptions,
    sweeps: list[_Sweep],
    person: Person,
    row: int,
    middle: NDArray[np.uint8],
    pictures: list[NDArray[np.uint8]],
) -> Image.Image:
    """The images of one person, whose row in the arrays is `row`: the middle one, and those of each direction."""
    strengths, near = options.strengths, options.near
    apart = [n for n in range(len(strengths)) if n != near]
    tiles: list[list[Tile | None]] = [
        [
            Tile(picture, f"{_measured(sweep, row, n)}\n{number(sweep.kept[row, n], before='identity')}")
            for n, picture in zip(apart, images, strict=True)
        ]
        for sweep, images in zip(sweeps, pictures, strict=True)
    ]
    unchanged = f"{strengths[near]:g}{'' if strengths[near] else ': unchanged'}"
    cards = [sweep.direction.card for sweep in sweeps]
    return walks(
        person,
        Tile(middle, f"{unchanged}\n{number(sweeps[0].kept[row, near], before='identity')}"),
        tiles,
        columns=[heading(strengths[n]) for n in apart],
        labels=[_label(sweep, row, near) for sweep in sweeps],
        ends=[(end(card.low, "left"), end(card.high, "right")) for card in cards],
    )


def _coordinates(direction: Direction, faces: GeneratedFaces) -> Floats:
    known = np.isfinite(faces.similarity)
    result = np.full(known.shape, np.nan)
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
        return mean(found[:, -1] - found[:, 0])

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


def _numbers(sweep: _Sweep, strengths: tuple[float, ...]) -> dict[str, object]:
    own = sweep.own
    return {
        "card": dataclasses.asdict(sweep.direction.card),
        "measured": sweep.text,
        "values": listed(own),
        "to_person": listed(sweep.kept),
        "correlation_with_strength": correlation(own, np.array(strengths)),
        "right_way": list(sweep.right_way),
    }


def _effect(sweep: _Sweep, options: DirectionsOptions, shares: dict[str, dict[str, float]]) -> Effect:
    card, own, kept = sweep.direction.card, sweep.own, sweep.kept
    strengths, near = options.strengths, options.near
    right, people = sweep.right_way
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
        control=f"direction {card.name}{' without the others' if options.orthogonal else ''}{told}",
        change=f"{strengths[0]:+g} -> {strengths[-1]:+g} standard deviations, {len(own)} people",
        kept=(
            f"{number(mean(kept[:, near]))} at {strengths[near]:g}, {number(mean(kept[:, 0]))} and "
            f"{number(mean(kept[:, -1]))} at the ends, {kept.size} images"
        ),
        moved=moved,
    )
