"""The command line of this room: `id3pm sheet NAME`, one command for each kind of picture."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from id3pm.samples import PEOPLE

F = TypeVar("F", bound=Callable[..., Any])

SHEETS: dict[str, str] = {
    "attributes": "head pose and expression (Fig. 8)",
    "guidance": "the guidance scale (Fig. 4)",
    "interpolation": "from one person to another (Figs. 5, 13)",
    "pca": "along the principal axes of ID vectors (Fig. 14)",
    "projection": "onto the first k principal axes (Fig. 15)",
    "directions": "along custom directions (Figs. 6, 16, 17)",
    "mean": "one ID vector for several photographs (Fig. 11)",
    "table": "the measured effects of all sheets as a table for the documentation",
}
"""Name -> help line. `id3pm.evaluation.figures.NAME` defines the command as `NAME_command`."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SHEETS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SHEETS:
            return None
        command: click.Command = getattr(
            importlib.import_module(f"id3pm.evaluation.figures.{cmd_name}"), f"{cmd_name}_command"
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Sheets"):
            formatter.write_dl(list(SHEETS.items()))


@click.group("sheet", cls=_LazyGroup)
def sheet_group() -> None:
    """Pictures of what a control does, with its measured effect: NAME.png and NAME.json in --out."""


def common_options(command: F) -> F:
    """The options that every sheet has, and --super-resolution, for sheets that measure what they show."""
    return shared_options(click.option("--super-resolution", is_flag=True, help="Show 256 px images.")(command))


def shared_options(command: F) -> F:
    """The options that every sheet has: --repository, --photo, --out, --seed, --steps, --threads."""
    options = (
        click.option(
            "--repository",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("triton_repo"),
            help="Built engines.",
        ),
        click.option(
            "--photo",
            "photos",
            type=click.Path(path_type=Path),
            callback=required_paths("give a portrait, or a folder of portraits"),
            multiple=True,
            default=(PEOPLE,),
            show_default="the sample people",
            help="Photograph of a person, or a folder of them; may be repeated.",
        ),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/sheets")),
        click.option("--seed", type=click.IntRange(0), default=0, help="Of every image."),
        click.option("--steps", type=click.IntRange(1), help="Of the 64 px loop; else the bundle's default."),
        click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores if not given."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def required_paths(advice: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A click callback that refuses paths that do not exist, defaults too: those exist in a checkout alone.

    Args:
        advice: What to give instead.
    """

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        for path in value if isinstance(value, tuple) else (value,):
            if not path.exists():
                raise click.BadParameter(f"there is no {path} in {Path.cwd()}: {advice}")
        return value

    return check


def numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Reads numbers separated by commas (a click callback); `None` where nothing is given."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}: give numbers separated by commas, such as 1,2,5") from None


def given(**options: Any) -> dict[str, Any]:
    """The options that are not `None`: the others keep the bundle's defaults."""
    return {name: value for name, value in options.items() if value is not None}
