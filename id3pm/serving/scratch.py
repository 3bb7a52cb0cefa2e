"""Folders for what a server needs beside itself, which do not outlive it for long, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "id3pm-serving-"


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user can enter; removed at the end.

    It is locked (flock) until then, which tells others that it is in use: `remove_stale_folders`, and systemd-tmpfiles,
    which clears /tmp of old things.

    Args:
        parent: Where; by default where temporary files go.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_stale_folders(parent: Path | None = None, age_s: float = 60.0) -> list[Path]:
    """Removes the folders of killed processes: nobody has locked them.

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
    except OSError:  # it is in use, or somebody else removes it
        return False
    finally:
        os.close(descriptor)
    return True
