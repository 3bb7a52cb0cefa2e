"""Commands refuse options that the bundle cannot honour before they read data or load judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from id3pm.cli import cli
from id3pm.errors import InvalidOptionError


@pytest.mark.parametrize(
    "command",
    [
        "evaluate identity --steps 101 --data {nothing}",
        "evaluate quality --steps 101 --data {nothing}",
        "evaluate groups --steps 101 --data {nothing}",
        "evaluate photographs {folder} --steps 101",
        "baseline compare --steps 101 --data {nothing}",
        "sheet guidance --steps 101 --photo {picture}",
        "sheet interpolation --steps 101 --photo {picture}",
        "analyse {picture} --steps 101",
    ],
)
def test_steps_that_the_bundle_does_not_have_are_refused_at_once(
    command: str, tiny_repository: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"not read")
    words = command.format(nothing=tmp_path / "nothing", folder=tmp_path, picture=picture).split()
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, [*words, "--repository", str(tiny_repository), "--out", str(out)])
    assert isinstance(result.exception, InvalidOptionError), result.output
    assert str(result.exception).startswith("steps=101: this model has 100 training steps")
    assert not out.exists()
