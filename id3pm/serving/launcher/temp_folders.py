"""Temporary folders of a server, removed by it or by a later start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from id3pm.serving.launcher.process import started

_PREFIX = "id3pm-serving-"
_ENVIRONMENTS = Path("/tmp")  # independent of TMPDIR: Triton's Python backend has it hard-coded
_ENVIRONMENT = re.compile(r"python_env_\w{6}")
_BACKEND = "/libtriton_python.so"
_INIT_NAMESPACE = 0xEFFFFFFC  # the kernel's PROC_PID_INIT_INO: the PID namespace that contains all others


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user can enter; removed at the end.

    It is locked (flock) until then, which tells others that it is in use: `remove_stale_folders`, and systemd-tmpfiles,
    which clears /tmp of old things.

    Args:
        parent: Parent folder; by default that of temporary files.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_stale_folders(parent: Path | None = None, age_s: float = 60.0) -> list[Path]:
    """Removes the folders of killed processes: they are not locked any more.

    Args:
        parent: As of `scratch_folder`.
        age_s: Younger ones stay: they may be about to be locked.

    Returns:
        What was removed.
    """
    found = Path(tempfile.gettempdir() if parent is None else parent).glob(f"{_PREFIX}*")
    return [folder for folder in found if _remove(folder, age_s)]


def _remove(folder: Path, age_s: float) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it has gone, or is another user's
        return False
    try:
        if time.time() - os.fstat(descriptor).st_mtime < age_s:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:  # it is in use, or another process removes it
        return False
    finally:
        os.close(descriptor)
    return True


def remove_stale_environments(folder: Path = _ENVIRONMENTS, margin_s: float = 60.0) -> list[Path]:
    """Removes the empty `python_env_XXXXXX` that Triton's Python backend makes at its start, and leaves when killed.

    Nothing tells which process one belongs to. So only those are removed that are older than every living process with
    that backend; a later start removes the others. A server that misses its folder aborts when it ends.

    Args:
        folder: Where they are.
        margin_s: Seconds by which they must be older: the clocks of files and processes differ.

    Returns:
        What was removed.
    """
    if not _private(folder):
        return []
    found = [path for path in folder.glob("python_env_*") if _ENVIRONMENT.fullmatch(path.name)]
    age_s = margin_s + max(map(_age_s, _backends()), default=0.0)
    removed = []
    for path in found:
        with contextlib.suppress(OSError):  # it has gone, or holds something
            status = path.lstat()
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > age_s:
                path.rmdir()
                removed.append(path)
    return removed


def _private(folder: Path) -> bool:
    """Whether /proc shows all users of a folder: false if a container shares it with the host or with others."""
    return Path("/proc/self/ns/pid").stat().st_ino == _INIT_NAMESPACE or folder.stat().st_dev == Path("/").stat().st_dev


def _backends() -> list[int]:
    """The processes, of those that this user may look into, that have Triton's Python backend loaded."""
    backends = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _BACKEND in (process / "maps").read_text(errors="replace"):
                backends.append(int(process.name))
    return backends


def _age_s(pid: int) -> float:
    """Seconds since a process started; 0 where it has ended."""
    ticks = started(pid)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK") if ticks else 0.0
