"""Command-line options as the fields of a dataclass: each option is declared once, beside its type.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class PcaOptions(SheetOptions):
        axes: int = option(type=click.IntRange(1), default=3, help="The first so many.")

    @click.command("pca")
    @takes(PcaOptions)
    def pca_command(options: PcaOptions) -> None: ...

A class inherits the options of its bases, which come first in the help.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
Other = TypeVar("Other", bound="DataclassInstance")
Result = TypeVar("Result")
Callback = Callable[[click.Context, click.Parameter, Any], Any]
"""What click calls with the value of a parameter; it returns the value that the command gets."""


class FolderOrAddress(click.Path):
    """A folder, or the address of a bundle or an engine set: that is pulled into the cache, if it is not there.

    Args:
        kind: `bundle` or `engines`.
        **settings: Of `click.Path`.
    """

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__(path_type=Path, file_okay=False, **settings)
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        if isinstance(value, str) and value.startswith(("hf://", "oci://")):
            value = importlib.import_module("id3pm.artifacts.commands").folder_of(value, self.kind)
        return super().convert(value, param, ctx)


FOLDER = click.Path(path_type=Path, file_okay=False)
BUNDLE = FolderOrAddress("bundle")
REPOSITORY = FolderOrAddress("engines")
EXISTING = click.Path(path_type=Path, exists=True)
EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
EXISTING_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


def option(*names: str, **settings: Any) -> Any:
    """A field that `--field-name` sets.

    Args:
        *names: Other names in place of `--field-name`, such as `--on/--off`.
        **settings: Of `click.option`.
    """
    return dataclasses.field(metadata={"decorate": functools.partial(click.option, *names, **settings), "names": names})


def argument(**settings: Any) -> Any:
    """A field that a positional argument sets; see `click.argument`."""
    return dataclasses.field(metadata={"decorate": functools.partial(click.argument, **settings), "names": ("",)})


def takes(kind: type[Options]) -> Callable[[Callable[[Options], Result]], Callable[..., Result]]:
    """Gives a command the options of a dataclass and calls it with one value of that class."""

    def decorate(function: Callable[[Options], Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def command(**values: Any) -> Result:
            return function(kind(**values))

        for field in reversed(dataclasses.fields(kind)):
            names = () if field.metadata["names"] else (f"--{field.name.replace('_', '-')}",)
            command = field.metadata["decorate"](*names, field.name)(command)
        return command

    return decorate


def given(options: DataclassInstance, *fields: str, **renamed: str) -> dict[str, Any]:
    """The options that were given on the command line, by name; one that was not given is `None`.

    Args:
        options: Of a command.
        *fields: Names of its fields.
        **renamed: Field -> name in the result.
    """
    names = {field: field for field in fields} | renamed
    values = {name: getattr(options, field) for field, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def extract(options: DataclassInstance, kind: type[Other]) -> Other:
    """A value of another dataclass with the options of the same names; its other fields keep their defaults."""
    names = {field.name for field in dataclasses.fields(options)} & {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: getattr(options, name) for name in names})


def required_paths(advice: str) -> Callback:
    """Refuses paths that do not exist, defaults too: those exist in a checkout alone.

    Args:
        advice: What to give instead.
    """

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        for path in value if isinstance(value, tuple) else (value,):
            if not path.exists():
                raise click.BadParameter(f"there is no {path} in {Path.cwd()}: {advice}")
        return value

    return check


def numbers(kind: Callable[[str], float] = float, example: str = "1,2,5") -> Callback:
    """Reads numbers separated by commas; `None` where nothing is given."""

    def convert(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
        try:
            return None if text is None else tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r}: give numbers separated by commas, such as {example}") from None

    return convert
