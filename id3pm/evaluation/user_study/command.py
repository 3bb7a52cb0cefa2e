"""`id3pm study`: make the page of a user study, and collect its answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from id3pm.command_options import EXISTING_FILE, EXISTING_FOLDER, FOLDER, argument, option, takes
from id3pm.evaluation.files import write_json
from id3pm.evaluation.user_study.collect import collect, table
from id3pm.evaluation.user_study.make import KEY, PAGE, make_study


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """The options of `id3pm study make`."""

    folders: tuple[Path, ...] = argument(nargs=-1, required=True, type=EXISTING_FOLDER)
    out: Path = option(type=FOLDER, default=Path("out/study"), help="Folder.")
    title: str = option(default="Which pictures show the person?", help="Of the page.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """The options of `id3pm study collect`."""

    answers: tuple[Path, ...] = argument(nargs=-1, required=True, type=EXISTING_FILE)
    key: Path = option(type=EXISTING_FILE, default=Path("out/study") / KEY, help="study_key.json of the study.")
    out: Path | None = option(type=click.Path(path_type=Path, dir_okay=False), help="JSON file for the results.")


@click.group("study")
def study_group() -> None:
    """A user study: people rank methods by identity and realism."""


@study_group.command("make")
@takes(MakeOptions)
def make_command(options: MakeOptions) -> None:
    """Make the page.

    Each of FOLDERS is a set, which has targets/NAME.png, and METHOD/NAME.png of the same names for each method, as
    id3pm baseline compare leaves them; sets may have different methods. study.html in --out goes to the participants;
    it needs no server and sends nothing. study_key.json stays with you.
    """
    found = make_study(options.folders, options.out, options.title)
    for name, (targets, methods) in found.items():
        click.echo(f"{name}: {targets} targets, {', '.join(methods)}")
    click.echo(f"{options.out / PAGE}; keep {options.out / KEY}")


@study_group.command("collect")
@takes(CollectOptions)
def collect_command(options: CollectOptions) -> None:
    """Mean ranks from the files that participants saved, with intervals, Friedman's test and Kendall's W."""
    results = collect(options.key, options.answers)
    click.echo(table(results))
    if options.out is not None:
        write_json(
            options.out, {name: [dataclasses.asdict(result) for result in of_set] for name, of_set in results.items()}
        )
