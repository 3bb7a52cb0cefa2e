"""What the command refuses before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from id3pm.page.command import page_command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--server", "127.0.0.1:8001", "--repository", "x"], "exclude each other"),
        (["--repository", "x", "--ssl"], "go with --server alone"),
        (["--host", "0.0.0.0"], "asks for no login"),
        (["--port", "70000"], "70000"),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], message: str) -> None:
    result = CliRunner().invoke(page_command, words)
    assert result.exit_code == 2 and message in result.output


def test_a_token_does_not_travel_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    words = ["--server", "faces.example:8001", "--token-file", str(tmp_path / "token")]
    result = CliRunner().invoke(page_command, words)
    assert result.exit_code == 1 and "unencrypted" in result.output
    assert "0123456789abcdef" not in result.output


def test_an_address_that_is_none_is_named() -> None:
    result = CliRunner().invoke(page_command, ["--server", "http://127.0.0.1"])
    assert result.exit_code == 1 and "host:port" in result.output
