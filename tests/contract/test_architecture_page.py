"""docs/architecture.md names files that exist, and at most three of them, beside a new one, for each kind of change."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
KINDS = ("a sampler", "an engine", "an option", "an FR model", "a metric", "a figure", "an error", "a limit")
KINDS = (*KINDS, "a wire field", "a training loss")
FILE = re.compile(r"`([\w/.]+(?:\.py|/))`")


def rows(heading: str) -> dict[str, list[str]]:
    """The first cell of each row of the table under a heading, with the files that the others name."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {first: FILE.findall(" ".join(rest)) for first, *rest in cells[1:]}


def exists(name: str, *folders: str) -> bool:
    """Whether there is such a file in one of these folders; NAME stands for any."""
    return any(list((ROOT / folder).glob(name.replace("NAME", "*"))) for folder in folders)


def test_each_change_needs_at_most_three_files_and_they_exist() -> None:
    found = rows("Where do I change ...")
    assert set(found) == set(KINDS)
    for change, files in found.items():
        edited = [file for file in files if "NAME" not in file and not file.endswith("/")]  # the others are new
        assert 1 <= len(edited) <= 3, f"{change}: {files}"
        assert [file for file in files if not exists(file, ".")] == [], change


def test_the_files_on_the_way_of_a_request_exist() -> None:
    found = rows("The way of a request")
    assert len(found) >= 10
    for step, files in found.items():
        assert files, step
        folders = ("id3pm/serving", "id3pm/sampling", "client/src/id3pm_client", ".")
        assert [file for file in files if not exists(file, *folders)] == [], step


def test_a_file_that_does_not_exist_is_noticed() -> None:
    assert exists("id3pm/engines/NAME_engine.py", ".") and not exists("id3pm/engines/NAME_motor.py", ".")
