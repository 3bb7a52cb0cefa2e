"""How much memory the processes of a server have.

PSS counts a page that n processes share as 1/n of a page in each, so its sum over all of them is true; but it changes
when others that share a library come and go. USS counts only what a process has for itself: there a leak shows, or in
the stubs' shared memory, which is counted apart. RSS counts shared pages once for each process.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import psutil

from id3pm.serving.shared_memory import SHARED_MEMORY, regions_of

MB = 1e6


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of some processes together: proportional share, resident, private (unique), and their part of /dev/shm."""

    pss: int
    rss: int
    uss: int
    shm: int


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure(processes: Sequence[psutil.Process]) -> Memory:
    """Of those processes that still live."""
    pss = rss = uss = 0
    regions: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = process.memory_full_info()
            pss, rss, uss = pss + info.pss, rss + info.rss, uss + info.uss
            regions |= regions_of(process.pid)
    return Memory(pss, rss, uss, sum(map(_size, regions)))


def _size(region: str) -> int:
    try:
        return (SHARED_MEMORY / region).stat().st_blocks * 512
    except FileNotFoundError:
        return 0
