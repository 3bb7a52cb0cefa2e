"""Commands refuse options that the bundle cannot honour before they read data or load judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from id3pm.cli import cli
from id3pm.errors import InvalidOptionError

STEPS = "steps=101: this model has 100 training steps"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate identity --steps 101 --data {nothing}", STEPS),
        ("evaluate quality --steps 101 --data {nothing}", STEPS),
        ("evaluate groups --steps 101 --data {nothing}", STEPS),
        ("evaluate photographs {folder} --steps 101", STEPS),
        ("baseline compare --steps 101 --data {nothing}", STEPS),
        ("sheet guidance --steps 101 --photo {picture}", STEPS),
        ("sheet guidance --scales 1,20 --photo {picture}", "guidance_scale=20.0: must be between 1"),
        ("sheet interpolation --steps 101 --photo {picture}", STEPS),
        ("analyse {picture} --steps 101", STEPS),
    ],
)
def test_what_the_bundle_cannot_honour_is_refused_at_once(
    command: str, message: str, tiny_repository: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"not read")
    words = command.format(nothing=tmp_path / "nothing", folder=tmp_path, picture=picture).split()
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, [*words, "--repository", str(tiny_repository), "--out", str(out)])
    assert isinstance(result.exception, InvalidOptionError), result.output
    assert str(result.exception).startswith(message)
    assert not out.exists()
