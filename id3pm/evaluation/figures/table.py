"""The measured effects of all sheets as one Markdown table, and their pictures, for the documentation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from PIL import Image, PngImagePlugin

from id3pm.command_options import EXISTING_FILE, FOLDER, option, takes
from id3pm.errors import InvalidInputError
from id3pm.evaluation.markdown import table
from id3pm.formats.images import GENERATED_XMP, XMP_KEY

HEADINGS = {"control": "control", "change": "from -> to", "kept": "identity kept (cosine)", "moved": "what moved"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The options of `id3pm sheet table`."""

    folder: Path = option("--out", type=FOLDER, default=Path("out/sheets"))
    names: tuple[str, ...] = option(
        "--name", multiple=True, help="Of a sheet, in this order; may be repeated. Else all in the folder."
    )
    docs: Path | None = option(
        type=EXISTING_FILE,
        help="Page to put the table into, between the lines <!-- effects --> and <!-- end of effects -->.",
    )
    mark: str = option(default="effects", help="Another word for these lines, for a page with several tables.")
    pictures: Path | None = option(type=FOLDER, help="Folder for copies of the PNGs, 256 colours.")


@click.command("table")
@takes(TableOptions)
def table_command(options: TableOptions) -> None:
    """The table of measured effects, from the JSON reports that the other sheets left in --out."""
    folder = options.folder
    files = [folder / f"{name}.json" for name in options.names] or sorted(folder.glob("*.json"))
    if not files:
        raise InvalidInputError(f"{folder} has no reports: make some with id3pm sheet NAME")
    lines = markdown([effect for file in files for effect in read_effects(file)])
    if options.docs is None:
        click.echo("\n".join(lines))
    else:
        insert(options.docs, options.mark, lines)
        click.echo(options.docs)
    if options.pictures is not None:
        for file in files:
            click.echo(copy_small(file.with_suffix(".png"), options.pictures))


def read_effects(file: Path) -> list[dict[str, str]]:
    """The effects of one report; see `id3pm.evaluation.figures.sheet.Effect`.

    Raises:
        InvalidInputError: It is no report of a sheet.
    """
    try:
        report: Any = json.loads(file.read_text(encoding="utf-8"))
        effects = [{key: str(effect[key]) for key in HEADINGS} for effect in report["effects"]]
    except FileNotFoundError:
        raise InvalidInputError(f"{file} is missing: make it with id3pm sheet {file.stem}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{file.name} is no report of a sheet: {error!r}") from error
    return effects


def markdown(effects: list[dict[str, str]]) -> list[str]:
    """A table with one row for each effect, as lines."""
    return table(list(HEADINGS.values()), [[effect[key] for key in HEADINGS] for effect in effects])


def insert(page: Path, mark: str, lines: list[str]) -> None:
    """Replaces the text of a page between `<!-- MARK -->` and `<!-- end of MARK -->`.

    Raises:
        InvalidInputError: The page does not have one such place.
    """
    text = page.read_text(encoding="utf-8")
    start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise InvalidInputError(f"{page} needs one line {start.strip()!r} and, below it, one line {end.strip()!r}")
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    page.write_text(before + start + "\n".join(["", *lines, "", ""]) + end + after, encoding="utf-8")


def copy_small(picture: Path, folder: Path) -> Path:
    """Copies a sheet with a palette of 256 colours, a third of the bytes; it still says that it was generated."""
    folder.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    info.add_itxt(XMP_KEY, GENERATED_XMP)
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256).save(folder / picture.name, pnginfo=info, optimize=True)
    return folder / picture.name
