"""What the command refuses before anything is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
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


START = """
import sys
from pathlib import Path
from id3pm.page.command import _page
from id3pm_client import AsyncClient
with _page(lambda: AsyncClient("127.0.0.1:1"), Path(sys.argv[1]), "127.0.0.1", 0) as address:
    print(address, flush=True)
"""


def test_the_page_starts_though_the_environment_has_a_proxy(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as unused:  # whoever asks this proxy is refused
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
        environment = {**os.environ, **dict.fromkeys(names, proxy), "no_proxy": "example.org"}
        environment.pop("NO_PROXY", None)
        words = [sys.executable, "-c", START, str(tmp_path)]
        ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.stdout.startswith("http://127.0.0.1:"), ended.stderr
