"""Removes the shared memory of killed Triton Python stubs from /dev/shm."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "triton_python_backend_shm_region_"


def regions_of(pid: int) -> set[str]:
    """Names of the regions that a process maps; empty where it has ended, or is another user's."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_bytes()  # paths may have any bytes; other users choose them
    except OSError:
        return set()
    names = {line.rpartition(b"/")[2].partition(b" ")[0].decode(errors="replace") for line in maps.splitlines()}
    return {name for name in names if name.startswith(_PREFIX)}


def remove_regions(names: Iterable[str], folder: Path = SHARED_MEMORY) -> None:
    """Removes regions, if they still exist; processes that map them keep their content."""
    for name in names:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            (folder / name).unlink()


def remove_stale_regions(folder: Path = SHARED_MEMORY, age_s: float = 10.0) -> list[str]:
    """Removes the regions that killed servers left behind.

    A region is stale when no process maps it and it is older than `age_s` (a starting server creates before it maps).

    Returns:
        The names of what was removed.
    """
    old = {path.name for path in folder.glob(f"{_PREFIX}*") if _age_s(path) > age_s}
    if old:
        old = old.difference(*(regions_of(int(process.name)) for process in Path("/proc").glob("[0-9]*")))
    remove_regions(old, folder)
    return sorted(name for name in old if not (folder / name).exists())


def _age_s(path: Path) -> float:
    """Seconds since the last change; 0 where it has gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
