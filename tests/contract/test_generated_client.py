"""Generated files of the client hold what `client/generate.py` makes of their sources."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "client" / "generate.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the script."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return runpy.run_path(str(SCRIPT))


def test_generated_files_are_fresh() -> None:
    checked = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_rule_of_the_script_has_a_use(script: dict[str, Any]) -> None:
    folder = ROOT / script["CLIENT"]
    sources = "".join((folder / f"{module}.py").read_text() for module in script["SYNC_OF"])
    for word in {**script["WORDS"], **script["NAMES"]}:
        assert word in sources, word


def test_the_blocking_client_has_no_trace_of_asyncio(script: dict[str, Any]) -> None:
    for module in script["SYNC_OF"].values():
        text = (ROOT / script["CLIENT"] / f"{module}.py").read_text().partition("\n")[2]
        assert not [word for word in ("async", "await", "Async", "_aio", "aclos", "anext") if word in text], module
