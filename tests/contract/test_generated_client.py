"""Generated files of the client hold what `client/generate.py` makes of their sources."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "client" / "generate.py"


def test_generated_files_are_fresh() -> None:
    checked = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_rule_of_the_script_has_a_use() -> None:
    script = runpy.run_path(str(SCRIPT))
    folder = ROOT / script["CLIENT"]
    sources = "".join((folder / f"{module}.py").read_text() for module in script["SYNC_OF"])
    for word in {**script["WORDS"], **script["NAMES"]}:
        assert word in sources, word


def test_the_blocking_client_has_no_trace_of_asyncio() -> None:
    script = runpy.run_path(str(SCRIPT))
    for module in script["SYNC_OF"].values():
        text = (ROOT / script["CLIENT"] / f"{module}.py").read_text().partition("\n")[2]
        assert not [word for word in ("async", "await", "Async", "_aio", "aclos", "anext") if word in text], module
