"""The commands in the documentation exist, with options that exist, and none that is needed is missing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

import screenshots
from id3pm.cli import cli
from id3pm.export import build as build_engines
from id3pm.export.face import build as face_models
from id3pm.page.command import page_command
from id3pm_client._cli import _parser

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/architecture.md",
    "docs/control.md",
    "docs/datasets.md",
    "deploy/README.md",
    "client/README.md",
    "demo/README.md",
    "docs/analysis.md",
    "docs/evaluation.md",
    "docs/hub.md",
    "docs/face_models.md",
    "docs/convert.md",
    "docs/training.md",
    "Makefile",
    "Dockerfile",
)
SCRIPTS = {
    "export/build_engines.py": build_engines.main,
    "export/face_models.py": face_models.main,
    "demo/page.py": page_command,
    "demo/screenshots.py": screenshots.main,
}
COMMAND = re.compile(rf"(?:(?:id3pm|id3pm-client) |python (?:{'|'.join(map(re.escape, SCRIPTS))}))[^`|]*")


def documented() -> list[tuple[str, list[str]]]:
    """(page, words) of every command that begins a line of code, a recipe or a comment with a command."""
    found = []
    for name in PAGES:
        text = (ROOT / name).read_text().replace("\\\n", " ").replace("$(BIN)/", "")
        for part in (part for line in text.splitlines() for part in line.split(" && ")):
            if match := COMMAND.match(part.strip(" \t#")):
                found.append((name, shlex.split(match[0], comments=True)))
    return found


COMMANDS = documented()


def check(command: click.Command, words: list[str]) -> None:
    """Parses, as far as that needs no files."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no {words[0]}"
        check(found, words[1:])
        return
    given, rest, _ = command.make_parser(context).parse_args(list(words))
    needed = {parameter.name for parameter in command.params if parameter.required}
    assert not rest
    assert needed <= set(given)


def test_there_are_commands_to_check() -> None:
    assert {words[0] for _, words in COMMANDS} == {"id3pm", "id3pm-client", "python"}
    assert any(words[:2] == ["id3pm", "convert"] for _, words in COMMANDS)
    assert {words[1] for _, words in COMMANDS if words[0] == "python"} == set(SCRIPTS)
    assert {"README.md", "demo/README.md", "docs/face_models.md", "docs/training.md"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[" ".join(words)[:60] for _, words in COMMANDS])
def test_a_documented_command_can_be_given(name: str, words: list[str]) -> None:
    if words[0] == "id3pm":
        check(cli, words[1:])
    elif words[0] == "python":
        check(SCRIPTS[words[1]], words[2:])
    else:
        _parser().parse_args(words[1:])
