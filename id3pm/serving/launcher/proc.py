"""Processes as /proc describes them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether a process exists and is more than an entry that waits for its parent."""
    return _status(pid)[:1] not in ([], ["Z"], ["X"])


def children(pid: int) -> dict[int, list[str]]:
    """The command lines of a process's children, by process id; empty where it has ended."""
    found: dict[int, list[str]] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found[child] = Path(f"/proc/{child}/cmdline").read_text(errors="replace").split("\0")
    return found


def started(pid: int) -> str:
    """When a process started, in the kernel's ticks: with the process id it names one process for ever."""
    return (_status(pid)[19:20] or [""])[0]


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name: the state is the first; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # anything else says nothing of the process
        return []
