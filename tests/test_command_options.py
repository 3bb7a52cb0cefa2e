"""Options of a dataclass reach the command as one value, and its help lists them, inherited ones first."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from id3pm.command_options import argument, given, numbers, option, required_paths, takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """Inherited."""

    seed: int = option(default=0, help="Of every image.")
    large: bool = option("--large/--small", default=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Base):
    """A base's field may be declared anew: it keeps its place."""

    photos: tuple[str, ...] = argument(nargs=-1, required=True)
    guidance_scale: float | None = option(type=float)
    shares: tuple[float, ...] | None = option(callback=numbers())
    folder: Path = option(type=click.Path(path_type=Path), callback=required_paths("give a folder"), default=Path("."))
    seed: int = option(default=7, help="Another.")


def run(*words: str) -> tuple[Own | None, Result]:
    found: list[Own] = []

    @click.command("own", context_settings={"show_default": True})
    @takes(Own)
    def command(options: Own) -> None:
        """What it does."""
        found.append(options)

    result = CliRunner().invoke(command, words)
    return (found[0] if found else None), result


def test_the_command_gets_one_value_of_the_class() -> None:
    options, _ = run("a.jpg", "b.jpg", "--guidance-scale", "2.5", "--small", "--shares", "0.5,1")
    expected = {"photos": ("a.jpg", "b.jpg"), "guidance_scale": 2.5, "shares": (0.5, 1.0), "seed": 7, "large": False}
    assert options == Own(folder=Path("."), **expected)  # type: ignore[arg-type]


def test_help_lists_inherited_options_first() -> None:
    text = run("--help")[1].output
    assert "What it does." in text and "PHOTOS..." in text and "[default: 7]" in text
    assert re.findall(r"^  --([a-z-]+)", text, re.MULTILINE) == [
        "seed",
        "large",
        "guidance-scale",
        "shares",
        "folder",
        "help",
    ]


def test_only_what_was_given_is_passed_on() -> None:
    options, _ = run("a", "--guidance-scale", "2")
    assert options is not None
    assert given(options, "shares", "seed", guidance_scale="scale") == {"scale": 2.0, "seed": 7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "--shares", "1,x"), "'1,x': give numbers separated by commas, such as 1,2,5"),
        (("a", "--folder", "nosuch"), "there is no nosuch in .*: give a folder"),
        ((), "Missing argument 'PHOTOS...'"),
        (("a", "--guidance", "2"), "No such option"),
    ],
)
def test_a_wrong_value_is_a_usage_error(words: tuple[str, ...], message: str) -> None:
    options, result = run(*words)
    assert options is None and result.exit_code == 2
    assert re.search(message, " ".join(result.output.split())), result.output
