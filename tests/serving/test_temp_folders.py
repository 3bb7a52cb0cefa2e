"""Folders of killed servers are removed, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from id3pm.serving.launcher import temp_folders as scratch
from id3pm.serving.launcher.temp_folders import remove_stale_environments, remove_stale_folders, scratch_folder

HOLDER = """
import pathlib, sys, time
from id3pm.serving.launcher.temp_folders import scratch_folder
with scratch_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "backends").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""

BACKEND = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file:
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("loaded", flush=True)
time.sleep(60)
"""


def test_a_folder_is_this_users_alone_and_goes_with_its_user(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert not folder.exists()


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one_and_not_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert remove_stale_folders(tmp_path, age_s=0.0) == [] and folder.is_dir()
        process.kill()
        process.wait(timeout=10)
    assert remove_stale_folders(tmp_path) == [] and folder.is_dir(), "too young: its user may be about to lock it"
    assert remove_stale_folders(tmp_path, age_s=0.0) == [folder] and not folder.exists()


def test_only_folders_of_our_own_are_removed(tmp_path: Path) -> None:
    kept = [tmp_path / "other", tmp_path / "target"]
    for folder in kept:
        folder.mkdir()
    (tmp_path / "id3pm-serving-file").touch()
    (tmp_path / "id3pm-serving-link").symlink_to(tmp_path / "target")
    assert remove_stale_folders(tmp_path, age_s=0.0) == [] and all(folder.is_dir() for folder in kept)


def environment(folder: Path, name: str, age_s: float = 0.0) -> Path:
    """A folder as Triton's Python backend makes it."""
    made = folder / f"python_env_{name}"
    made.mkdir()
    os.utime(made, (time.time() - age_s,) * 2)
    return made


def test_what_the_python_backend_of_killed_servers_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton has /tmp/python_env_XXXXXX in its code, and removes it only where it ends by itself."""
    monkeypatch.setattr(scratch, "_private", lambda folder: True)
    library = tmp_path / "libtriton_python.so"
    library.write_bytes(b"library")
    year = 3600.0 * 24 * 365  # longer than any server of this machine
    kept = [environment(tmp_path, name, year) for name in ("filled", "longer-name")]
    (kept[0] / "0").mkdir()
    os.utime(kept[0], (0, 0))
    stale = [environment(tmp_path, name, year) for name in ("0J4p9T", "zz_zzz")]
    with subprocess.Popen([sys.executable, "-c", BACKEND, str(library)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "loaded\n"
        used = environment(tmp_path, "in_use")
        assert sorted(remove_stale_environments(tmp_path, margin_s=0.0)) == sorted(stale)
        assert used.is_dir(), "made after the start of a server that lives"
        assert all(folder.is_dir() for folder in kept)
        server.kill()
    assert remove_stale_environments(tmp_path) == [] and used.is_dir(), "too young: its server may be starting"


def test_in_a_folder_that_containers_share_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its servers may be in another PID namespace, where they are not visible."""
    folder = environment(tmp_path, "theirs", 1e8)
    monkeypatch.setattr(scratch, "_INIT_NAMESPACE", 1)
    assert scratch._private(Path("/")) and not scratch._private(Path("/proc")), "another file system is another's, too"
    monkeypatch.setattr(scratch, "_private", lambda folder: False)
    assert remove_stale_environments(tmp_path) == [] and folder.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter everything")
def test_a_folder_that_cannot_be_entered_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        folder.chmod(0)
        assert remove_stale_folders(tmp_path, age_s=0.0) == []
        folder.chmod(0o700)
