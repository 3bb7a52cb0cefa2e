"""How much memory the processes of a server have.

PSS counts a page that n processes share as 1/n of a page in each, so sums over processes are true; RSS counts it n
times. The stubs' shared memory in /dev/shm is part of both, and counted once more on its own to see it grow.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import psutil

MB = 1e6


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of some processes together: proportional share, resident, private (unique), and of /dev/shm."""

    pss: int
    rss: int
    uss: int
    shm: int
    processes: int


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure(processes: Iterable[psutil.Process]) -> Memory:
    """Of those processes that still live."""
    pss = rss = uss = count = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = process.memory_full_info()
            pss, rss, uss, count = pss + info.pss, rss + info.rss, uss + info.uss, count + 1
    return Memory(pss, rss, uss, shared_memory(), count)


def shared_memory(folder: Path = Path("/dev/shm")) -> int:
    """Bytes that Triton's stubs hold in /dev/shm, of all servers on this machine."""
    total = 0
    for path in folder.glob("triton_python_backend_shm_region_*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total
