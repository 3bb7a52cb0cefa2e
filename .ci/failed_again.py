"""Runs tests that failed beside the others once more, alone: those of up to three files, each named in the log.

Some tests wait for real servers, and a machine that does other work at the time may be too slow for them. The tests of
a file may share a server, so files are counted. What fails alone as well has failed; so has a run in which more failed,
or that did not get to its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MOST = 3  # files
PARTS = ("rooms", "integration")  # as in the Makefile
LIMIT_S = 600
CACHE = Path(".pytest_cache")


def main() -> int:
    """The exit status."""
    failed: list[str] = []
    for part in PARTS:
        kept = CACHE / part / "v" / "cache"
        ended = kept.parent / "id3pm" / "exit_status"
        if not ended.exists() or json.loads(ended.read_text()) not in (0, 1):
            sys.stderr.write(f"the tests of part {part!r} did not get to their end\n")
            return 1
        if (kept / "lastfailed").exists():
            failed += json.loads((kept / "lastfailed").read_text())
    if not 0 < len({test.partition("::")[0] for test in failed}) <= MOST:
        return 1
    sys.stderr.write(f"FAILED BESIDE OTHERS, run again alone: {', '.join(failed)}\n")
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-o", f"cache_dir={CACHE}/again", *failed]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=LIMIT_S).returncode


if __name__ == "__main__":
    sys.exit(main())
