"""Builds our engines: every target and precision of `id3pm.export.targets` that this CPU runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from id3pm.engines.manifest import Target
from id3pm.export import targets

ROOT = Path(__file__).resolve().parents[1]

TIMEOUT_S = 1200.0


class Build(NamedTuple):
    """One entry of the table."""

    target: Target
    precision: str

    @property
    def name(self) -> str:
        """As `--engines` takes it."""
        return f"{self.target}-{self.precision}"


def known_builds(wanted: Sequence[str] | None) -> tuple[list[Build], dict[str, str]]:
    """What can be built and run here, and of everything else why not.

    Args:
        wanted: Names; `None` for all.

    Raises:
        click.BadParameter: There is no such engine.
    """
    every = [Build(target, precision) for target, info in targets.TARGETS.items() for precision in info.precisions]
    names = [build.name for build in every]
    if unknown := sorted(set(wanted or ()) - set(names)):
        raise click.BadParameter(f"--engines {', '.join(unknown)}: choose from {', '.join(names)}")
    here, not_here = [], {}
    for build in every:
        if wanted is not None and build.name not in wanted:
            continue
        if targets.TARGETS[build.target].device != "cpu":
            not_here[build.target] = "runs on a GPU, and everything here is compared on the CPU"
        elif (reason := _why_not(build)) is not None:
            not_here[build.name] = reason
        else:
            here.append(build)
    return here, not_here


def _why_not(build: Build) -> str | None:
    known = targets.TARGETS[build.target].precisions[build.precision]
    return known.why_not or targets.why_not_executable(build.target, None)


def ensure(build: Build, bundle: Path, repository: Path, stage: str, rows: int) -> str | None:
    """Builds and verifies unless that has been done; `None`, or why there is no engine.

    Args:
        build: What.
        bundle: Of which networks.
        repository: Where to.
        stage: `base`, or `all` with the other stage and the face models.
        rows: Most rows of one call.
    """
    command = [sys.executable, str(ROOT / "export" / "build_engines.py"), "--bundle", str(bundle), "--stage", stage]
    command += ["--repository", str(repository), "--target", build.target, "--precision", build.precision]
    command += ["--max-batch", str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"not built within {TIMEOUT_S:g} s"
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1].removeprefix("Error: ") if lines else f"the build ended with exit code {done.returncode}"
