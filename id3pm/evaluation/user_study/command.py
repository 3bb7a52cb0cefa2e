"""`id3pm study`: make the page of a user study, and collect its answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from id3pm.evaluation.files import write_json
from id3pm.evaluation.user_study.collect import collect, table
from id3pm.evaluation.user_study.make import KEY, PAGE, make_study

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("study")
def study_group() -> None:
    """A user study: people rank methods by identity and realism."""


@study_group.command("make")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/study"), help="Folder.")
@click.option("--title", default="Which pictures show the person?", help="Of the page.")
def make_command(folder: Path, out: Path, title: str) -> None:
    """Make the page.

    FOLDER has targets/NAME.png, and METHOD/NAME.png of the same names for each method, as id3pm evaluate baselines
    leaves them. study.html in --out goes to the participants; it needs no server and sends nothing. study_key.json
    stays with you.
    """
    targets, methods = make_study(folder, out, title)
    click.echo(f"{out / PAGE}: {targets} targets, {', '.join(methods)}; keep {out / KEY}")


@study_group.command("collect")
@click.argument("answers", nargs=-1, required=True, type=FILE)
@click.option("--key", type=FILE, default=Path("out/study") / KEY, help="study_key.json of the study.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for the results.")
def collect_command(answers: tuple[Path, ...], key: Path, out: Path | None) -> None:
    """Mean ranks from the files that participants saved, with intervals, Friedman's test and Kendall's W."""
    results = collect(key, answers)
    click.echo(table(results))
    if out is not None:
        write_json(out, [dataclasses.asdict(result) for result in results])
