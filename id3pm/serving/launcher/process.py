"""Processes: a server that ends with its parent, the end of left-over servers, and facts from /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from id3pm.serving.launcher.shared_memory import regions_of, remove_regions

# The shell becomes the server (`exec`), so its process id ($$) is the server's. Beside it in the same process group
# stays a guard that holds the reading end of a pipe, and ends the group when the other end closes: when the launcher
# dies, by whatever signal. The kernel's own means, PR_SET_PDEATHSIG, looks at the thread that started the server, which
# may end long before its process does; and in a multi-threaded process nothing can safely be run between fork and exec.
_GUARDED = """
exec 3<&0 </dev/null
(trap '' TERM; read -r _ <&3; kill -TERM $$; sleep "$0"; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" 3<&-
"""
_LAUNCHER = "ID3PM_LAUNCHER"  # marks a server and its stubs as of one launcher: process id and time of its start
_GRACE_S = 5.0  # an idle Triton takes 2.5 to 4.5 s to end, and then leaves no shared memory behind


def start_guarded(
    command: Sequence[str], environment: Mapping[str, str], grace_s: float = _GRACE_S
) -> subprocess.Popen[str]:
    """Starts a program in a process group of its own, which ends when this process does, even by SIGKILL.

    The caller must end the group (`os.killpg`) also where the program has ended by itself: the guard belongs to it.

    Args:
        command: Program and arguments.
        environment: All its environment variables.
        grace_s: Seconds that the group has after SIGTERM to end by itself when this process is gone.

    Returns:
        The process; its id is the program's and the group's. Its output can be read from `stdout`; leave `stdin` alone.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARDED, str(grace_s), *command],
        env={**environment, _LAUNCHER: f"{os.getpid()}:{started(os.getpid())}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C must reach this process alone, which then drains
    )


def end_orphans() -> list[int]:
    """Kills the servers whose launcher is gone, and removes their shared memory.

    The guard of a server does this too; it may have been killed with the launcher. Servers of another PID namespace, as
    of a container, are not touched: process ids of their launchers are not valid here.

    Returns:
        The process ids.
    """
    orphans = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_orphan(path)]
    regions = set[str]().union(*map(regions_of, orphans))
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    remove_regions(regions)
    return orphans


def _is_orphan(process: Path) -> bool:
    try:
        if (process / "ns" / "pid").readlink() != Path("/proc/self/ns/pid").readlink():
            return False
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False
    for variable in variables:
        name, _, value = variable.decode(errors="replace").partition("=")
        if name == _LAUNCHER:
            launcher, _, since = value.partition(":")
            return launcher.isdecimal() and started(int(launcher)) != since
    return False


def runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
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
    """When a process started, in the kernel's ticks: together with the process id it identifies one process."""
    return (_status(pid)[19:20] or [""])[0]


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name: the state is the first; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # other errors say nothing about the process
        return []
