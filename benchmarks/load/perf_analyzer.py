"""NVIDIA's perf_analyzer: download, run, read its files.

The `perf-analyzer` wheels need glibc 2.38. Older systems, such as Debian 12, get the program of the wheel
`tritonclient==2.48.0`, which is 2.48.0 too and needs two libraries: libcudart (from a PyPI wheel; nothing of it is
used) and libb64, which Debian and Ubuntu have as a package and which is unpacked, not installed.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from load.summary import percentiles

NEW_WHEEL = "perf-analyzer>=2.60"
NEW_GLIBC = (2, 38)
OLD_WHEELS = ("tritonclient==2.48.0", "nvidia-cuda-runtime-cu12>=12,<13")
OLD_PACKAGE = "libb64-0d"
INSTALL_TIMEOUT_S = 600


@dataclasses.dataclass(frozen=True)
class PerfAnalyzer:
    """A perf_analyzer that runs: the program, and folders of libraries that it needs."""

    binary: Path
    libraries: tuple[Path, ...] = ()

    def run(self, arguments: Sequence[str], timeout_s: float) -> str:
        """Runs it and returns what it printed.

        Raises:
            RuntimeError: It failed or took too long; the message ends with its last words.
        """
        path = os.pathsep.join([*map(str, self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "LD_LIBRARY_PATH": path} if path else dict(os.environ)
        command = [str(self.binary), *arguments]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"perf_analyzer {' '.join(arguments)}: not done in {timeout_s:g} s") from None
        if done.returncode:
            words = (done.stdout + done.stderr).strip()[-1500:]
            raise RuntimeError(f"perf_analyzer {' '.join(arguments)}: exit status {done.returncode}:\n{words}")
        return done.stdout


def install(folder: Path) -> PerfAnalyzer:
    """The perf_analyzer in `folder`, put there first where it is not; needs no root.

    Raises:
        RuntimeError: It cannot be had or does not run; the message says what is missing.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch) / "perf_analyzer"
            unpacked.mkdir()
            if is_new(platform.libc_ver()):
                _wheels(unpacked, [NEW_WHEEL])
            else:
                _wheels(unpacked, OLD_WHEELS)
                _debian_package(unpacked, OLD_PACKAGE)
            unpacked.rename(folder)
    found = located(folder)
    found.run(["--version"], timeout_s=60)
    return found


def is_new(libc: tuple[str, str]) -> bool:
    """Whether the `perf-analyzer` wheels run with this C library, as `platform.libc_ver` calls it."""
    name, version = libc
    return name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= NEW_GLIBC


def located(folder: Path) -> PerfAnalyzer:
    """The program and its libraries among what was unpacked.

    Raises:
        RuntimeError: There is no program.
    """
    binaries = [path for path in sorted(folder.rglob("perf_analyzer")) if path.is_file()]
    if not binaries:
        raise RuntimeError(f"{folder} has no perf_analyzer; remove it and try again")
    binaries[0].chmod(0o755)  # zipfile forgets the mode
    libraries = {path.parent for pattern in ("libcudart.so.12", "libb64.so.0d") for path in folder.rglob(pattern)}
    return PerfAnalyzer(binaries[0], tuple(sorted(libraries)))


def _wheels(folder: Path, names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads, *names])
        for wheel in sorted(Path(downloads).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)


def _debian_package(folder: Path, name: str) -> None:
    """Unpacks a package of this system's sources; with package lists of its own, so that it needs no root."""
    if not shutil.which("apt-get"):
        raise RuntimeError(f"no apt-get: install {name} (libb64.so.0d) yourself, or run this on glibc 2.38 or newer")
    with tempfile.TemporaryDirectory() as state:
        (Path(state) / "lists" / "partial").mkdir(parents=True)
        (Path(state) / "archives" / "partial").mkdir(parents=True)
        own = ["-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}", "-o", "APT::Sandbox::User="]
        _run(["apt-get", "-qq", *own, "update"])
        _run(["apt-get", "-qq", *own, "download", name], cwd=state)
        (package,) = Path(state).glob("*.deb")
        _run(["dpkg-deb", "-x", str(package), str(folder)])


def _run(command: Sequence[str], cwd: str | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}:\n{done.stderr.strip()[-1500:]}")


def write_input(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The file for `--input-data`: one entry per request, used in turn.

    Args:
        path: Where to.
        rows: By input name, a list of values without the batch dimension, of any length.
    """
    entries = [{name: {"content": list(value), "shape": [len(value)]} for name, value in row.items()} for row in rows]
    path.write_text(json.dumps({"data": entries}))


def read_export(path: Path) -> dict[str, Any]:
    """Latencies and the achieved rate from `--profile-export-file`.

    It holds the bytes of the images as they are, which is no UTF-8 and no strict JSON.

    Raises:
        ValueError: It does not hold exactly one experiment with requests.
    """
    export = json.loads(path.read_bytes().decode("latin-1"), strict=False)
    experiments = [experiment for experiment in export["experiments"] if experiment["requests"]]
    if len(experiments) != 1:
        raise ValueError(f"{path}: {len(experiments)} experiments with requests, expected one")
    requests = experiments[0]["requests"]
    sent = np.array([request["timestamp"] for request in requests]) / 1e9
    answered = np.array([request["response_timestamps"][-1] for request in requests]) / 1e9
    span = float(answered.max() - sent.min())
    gaps = float(sent.max() - sent.min())
    return {
        "requests": len(requests),
        "images_per_s": len(requests) / span,
        "sent_per_s": (len(requests) - 1) / gaps if gaps else None,
        **percentiles((answered - sent).tolist()),
    }


def read_csv(path: Path) -> dict[str, float]:
    """What `-f` writes: its one line of figures, by column; latencies in microseconds."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if len(lines) != 1:
        raise ValueError(f"{path}: {len(lines)} lines of figures, expected one")
    return {name: float(value) for name, value in lines[0].items() if name and value}
