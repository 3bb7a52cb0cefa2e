"""Sweeps of one attribute with everything else fixed (paper, Fig. 8), and the value measured on each face."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.attributes import parse_values
from id3pm.command_options import given, option, takes
from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.common import mean
from id3pm.evaluation.figures.generator import FaceGenerator, GeneratedFaces, Person
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.figures.landmark_judge import LandmarkJudge, fitted_slope, pearson_r
from id3pm.evaluation.figures.sheet import Effect, ImageOptions
from id3pm.evaluation.figures.sweeps import DEFAULT_SWEEPS, Sweep, parse_sweep
from id3pm.face.landmarks import FaceMesh

Measures = Mapping[str, NDArray[np.float64]]


@dataclasses.dataclass(frozen=True, eq=False)
class Swept:
    """The images of one sweep, of all steps one after the other: in each, all people of the first seed, and so on.

    Attributes:
        sweep: The requested sweep.
        faces: The images of each step.
        measures: Measures of the images of all steps; see `LandmarkJudge.look`.
    """

    sweep: Sweep
    faces: Sequence[GeneratedFaces]
    measures: Measures

    @property
    def requested(self) -> NDArray[np.float64]:
        """The value asked for, of every image: [steps * people]."""
        return np.repeat(np.array(self.sweep.requested), len(self.faces[0].images))

    def measured(self, step: int) -> NDArray[np.float64]:
        """What the landmark network measures on each image of one step, [people]; NaN where it finds no face."""
        count = len(self.faces[step].images)
        everything = self.measures.get(self.sweep.judge, np.full(count * len(self.faces), np.nan))
        return everything[step * count : (step + 1) * count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttributesOptions(ImageOptions):
    """The options of `id3pm sheet attributes`."""

    sweeps: tuple[str, ...] = option(
        "--sweep",
        multiple=True,
        metavar="WHAT",
        help="NAME=LOW:HIGH, 'emotion=sad<->happy' or emotion=all. Repeats; else those of Fig. 8 that the bundle has.",
    )
    values: int = option(type=click.IntRange(2), default=7, help="Steps of a sweep.")
    seeds: int = option(type=click.IntRange(1), default=2, help="Images of each person that are measured.")
    fixed: str = option(default="", metavar="NAME=VALUE,...", help="Attributes of all images.")
    guidance: float | None = option(type=float, help="Guidance scale; else the bundle's default.")
    per_person: bool = option(is_flag=True, help="A row for each person, of the first sweep; else one for each sweep.")

    @property
    def sampling(self) -> dict[str, Any]:
        """See `SheetOptions.sampling`."""
        return given(self, "steps", guidance="guidance_scale")

    def plan(self, attribute_set: int | str, shared: Mapping[str, Any]) -> list[Sweep]:
        """The sweeps; all have the `shared` attributes, too. Errors as of `parse_sweep`."""
        texts = self.sweeps or DEFAULT_SWEEPS[attribute_set]
        return [parse_sweep(text, attribute_set, self.values, shared) for text in texts]


@click.command("attributes")
@takes(AttributesOptions)
def attributes_command(options: AttributesOptions) -> None:
    """Attributes (Fig. 8): faces in which one of them is changed, with its measured value below.

    What is neither swept nor fixed is free in set landmarks, and in the paper's sets 0, with a neutral face; set 3
    needs --fixed with age, gender and hair. The effect is measured on all people and seeds.
    """
    with options.generator(options.super_resolution) as generator:
        bundle, attribute_set = generator.pipeline.base_manifest.bundle, generator.pipeline.base_manifest.attribute_set
        if attribute_set is None:
            raise InvalidInputError(
                f"bundle {bundle.name} takes no attributes: build one that does, such as demo_attributes"
            )
        shared = parse_values(options.fixed) if options.fixed else {}
        plan = options.plan(attribute_set, shared)
        people = generator.people(options.photos)
        free, done = _measure(generator, people, options, shared, plan)
        loop = generator.sampling(**options.sampling)
    kept = mean(free.faces[0].similarity)
    report = {
        "bundle": bundle.name,
        "people": len(people),
        "seeds": list(range(options.seed, options.seed + options.seeds)),
        "fixed": shared,
        "similarity_without": kept,
        "sweeps": [_numbers(each, free.measures) for each in done],
    }
    name = f"attributes_{plan[0].name.split()[0]}" if options.per_person else "attributes"
    effects = [_effect(each, kept, free.measures) for each in done]
    how = f"seed {options.seed}, {loop.steps} steps, guidance {loop.guidance_scale:g}; similarity: cosine to the target"
    options.write(name, _sheet(done, people, free, how, options.per_person), effects, report)


def _measure(
    generator: FaceGenerator,
    people: Sequence[Person],
    options: AttributesOptions,
    shared: Mapping[str, Any],
    plan: Sequence[Sweep],
) -> tuple[Swept, list[Swept]]:
    """The images with the shared attributes alone, and those of each sweep."""
    judge = LandmarkJudge(generator.pipeline.face_stage, FaceMesh(threads=options.threads))
    vectors = np.concatenate([np.stack([person.vector for person in people])] * options.seeds)
    seeds = np.repeat(np.arange(options.seed, options.seed + options.seeds), len(people)).tolist()

    def swept(sweep: Sweep) -> Swept:
        faces = [
            generator.generate(vectors, seeds, attributes=step or None, **options.sampling) for step in sweep.values
        ]
        return Swept(sweep, faces, judge.look(np.concatenate([each.images for each in faces])))

    name = f"only {options.fixed}" if options.fixed else "without attributes"
    return swept(Sweep("", "", (shared,), (name,), (), "")), [swept(sweep) for sweep in plan]


def _sheet(done: Sequence[Swept], people: Sequence[Person], free: Swept, how: str, per_person: bool) -> Image.Image:
    """All people of the first sweep, or all sweeps of the first person, after the target and one without attributes."""
    rows = [(done[0], row) for row in range(len(people))] if per_person else [(swept, 0) for swept in done]
    tiles: list[list[Tile | None]] = [
        [
            Tile(people[row].image, f"target {people[row].name}"),
            _tile(dataclasses.replace(free, sweep=swept.sweep), 0, row, "" if per_person else free.sweep.labels[0]),
            *(
                _tile(swept, step, row, "" if per_person else f"asked {label}")
                for step, label in enumerate(swept.sweep.labels)
            ),
        ]
        for swept, row in rows
    ]
    names = [f"{swept.sweep.name.replace('_', ' ')} {swept.sweep.unit}".strip() for swept in done]
    if per_person:
        columns = ["", *free.sweep.labels, *(f"asked {label}" for label in done[0].sweep.labels)]
        return grid(tiles, title=f"{names[0].capitalize()}: {len(people)} people, {how}", columns=columns)
    title = f"Attributes of person {people[0].name}: {how}"
    return grid(tiles, title=title, labels=[name.replace(" ", "\n") for name in names])


def _tile(swept: Swept, step: int, row: int, requested: str) -> Tile:
    """An image with the value asked for, the value measured and the similarity."""
    faces, value = swept.faces[step], float(swept.measured(step)[row])
    measured = "" if np.isnan(value) else f"measured {value:.{0 if swept.sweep.unit else 2}f}"
    similarity = faces.similarity[row]
    seen = "no face" if np.isnan(similarity) else f"similarity {similarity:.2f}"
    return Tile(faces.images[row], "\n".join(line for line in (requested, measured, seen) if line))


def _numbers(swept: Swept, spread: Measures) -> dict[str, Any]:
    """The measurements of one sweep: JSON values."""
    sweep, count = swept.sweep, len(swept.faces)
    numbers: dict[str, Any] = {
        "name": sweep.name,
        "unit": sweep.unit,
        "steps": list(sweep.labels),
        "asked": list(sweep.requested),
        "similarity": [mean(faces.similarity) for faces in swept.faces],
        "no_face": [int(np.isnan(faces.similarity).sum()) for faces in swept.faces],
    }
    if not sweep.requested or sweep.judge not in swept.measures:
        return numbers
    second = swept.measures.get(f"dlib {sweep.judge}")
    return {
        **numbers,
        "measured": [mean(swept.measured(step)) for step in range(count)],
        "slope": fitted_slope(swept.requested, swept.measures[sweep.judge]),
        "correlation": pearson_r(swept.requested, swept.measures[sweep.judge]),
        "correlation_dlib": None if second is None else pearson_r(swept.requested, second),
        "without": mean(spread[sweep.judge]),
        "std_without": float(np.nanstd(spread[sweep.judge])),
    }


def _effect(swept: Swept, kept: float, spread: Measures) -> Effect:
    numbers = _numbers(swept, spread)
    similar = numbers["similarity"]
    moved = "not measured"
    if "slope" in numbers:
        digits = 0 if swept.sweep.unit else 2
        found = (numbers["measured"][0], numbers["measured"][-1], numbers["without"])
        first, last, without = (f"{value:.{digits}f}" for value in found)
        second = numbers["correlation_dlib"]
        moved = (
            f"{swept.sweep.judge} measured {first} -> {last}, {without} without; r = {numbers['correlation']:.2f}"
            + ("" if second is None else f", by dlib {second:.2f}")
        )
    return Effect(
        control=swept.sweep.name.replace("_", " "),
        change=f"{swept.sweep.labels[0]} -> {swept.sweep.labels[-1]} {swept.sweep.unit}".strip(),
        kept=f"{similar[0]:.2f} -> {similar[-1]:.2f}, least {min(similar):.2f}; {kept:.2f} without",
        moved=moved,
    )
