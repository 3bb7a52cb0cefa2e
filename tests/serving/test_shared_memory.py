from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from pathlib import Path

from id3pm.serving.launcher.process import runs, started
from id3pm.serving.launcher.shared_memory import regions_of, remove_regions, remove_stale_regions

PREFIX = "triton_python_backend_shm_region_"


def region(folder: Path, name: str, *, old: bool = True) -> Path:
    path = folder / name
    path.write_bytes(bytes(mmap.PAGESIZE))
    if old:
        os.utime(path, (1, 1))
    return path


def test_only_old_regions_that_nobody_maps_are_stale(tmp_path: Path) -> None:
    stale, mapped = region(tmp_path, f"{PREFIX}a"), region(tmp_path, f"{PREFIX}b")
    young, other = region(tmp_path, f"{PREFIX}c", old=False), region(tmp_path, "unrelated")
    with mapped.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert remove_stale_regions(tmp_path) == [stale.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mapped.name, young.name, other.name])


def test_the_regions_of_a_process_are_those_it_maps(tmp_path: Path) -> None:
    path = region(tmp_path, f"{PREFIX}mine")
    assert regions_of(os.getpid()) == set()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert regions_of(os.getpid()) == {path.name}


def test_processes_and_files_of_any_name_are_read(tmp_path: Path) -> None:
    """Who may start a process on this machine chooses its name; in the C locale, any letter beyond ASCII was enough."""
    path = region(tmp_path, f"{PREFIX}mine")
    odd = tmp_path / os.fsdecode(b"\xff\xe9\n) 1 (")
    odd.write_bytes(path.read_bytes())
    with path.open("r+b") as file, odd.open("r+b") as other:
        with mmap.mmap(file.fileno(), 0), mmap.mmap(other.fileno(), 0):
            assert regions_of(os.getpid()) == {path.name}
    program = tmp_path / os.fsdecode(b"\xff\xe9")
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert runs(process.pid) and started(process.pid).isdecimal()
            assert started(process.pid) in Path(f"/proc/{process.pid}/stat").read_bytes().decode("latin-1").split()
        finally:
            process.kill()


def test_removing_what_has_gone_is_no_error(tmp_path: Path) -> None:
    path = region(tmp_path, f"{PREFIX}a")
    remove_regions([path.name, f"{PREFIX}gone"], tmp_path)
    assert not path.exists()
