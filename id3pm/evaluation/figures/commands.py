"""Command `id3pm sheet NAME`: one command for each kind of picture."""

from __future__ import annotations

import importlib

import click

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
    """Sheets of generated images with the measured effect of a control: NAME.png and NAME.json in --out."""
