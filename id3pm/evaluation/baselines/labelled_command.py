"""`id3pm baseline labelled`."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import click

from id3pm.command_options import FOLDER, option, takes
from id3pm.evaluation.baselines.labelled import first_people, write_labelled
from id3pm.evaluation.options import DataOptions, PresetOptions
from id3pm.evaluation.progress import progress_bar


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledOptions(DataOptions, PresetOptions):
    """The options of `id3pm baseline labelled`."""

    people: int = option(
        type=click.IntRange(1), default=2000, help="The first training people, at most so many; 2000 take over an hour."
    )
    seeds: int = option(type=click.IntRange(1), default=3, help="Images of each person beside the set's own picture.")
    guidance: float | None = option(type=float, help="Guidance scale; else the bundle's default.")
    out: Path = option(type=FOLDER, default=Path("data/labelled"), help="Folder of the new data set.")


@click.command("labelled")
@takes(LabelledOptions)
def labelled_command(options: LabelledOptions) -> None:
    """Several pictures of each training person, made by ID3PM: a labelled data set for Vec2Face (--labelled).

    Shards that are in --out are not made again.
    """
    sampling = {**options.sampling, **({} if options.guidance is None else {"guidance_scale": options.guidance})}
    with options.pipeline() as pipeline, progress_bar() as bar:
        pipeline.check(super_resolution=False, **sampling)
        total = options.seeds * len(first_people(options.data, options.people)["index"])
        advance = functools.partial(bar.advance, bar.add_task("images", total=total))
        people = write_labelled(
            pipeline, options.data, options.out, options.seeds, sampling, advance, most=options.people
        )
    click.echo(f"{options.out}: {people} people with {options.seeds + 1} pictures each")
