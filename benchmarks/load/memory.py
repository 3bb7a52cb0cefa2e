"""How much memory the processes of a server have.

PSS counts a page that n processes share as 1/n of a page in each, so its sum over all of them is true; but it changes
when others that share a library come and go, and so does USS, what a process has for itself. Both also follow the
system's page cache, which takes pages of libraries and engines back and reads them again. Anonymous memory (heaps and
stacks, in memory or swapped) does neither: there a leak shows, or in the stubs' shared memory, which is counted apart.
RSS counts shared pages once for each process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import psutil

from id3pm.serving.shared_memory import SHARED_MEMORY, regions_of

MB = 1e6


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of some processes together.

    Attributes:
        pss: Proportional share.
        rss: Resident.
        uss: Private (unique).
        anonymous: Of no file, shared pages proportionally.
        shm: Their part of /dev/shm.
    """

    pss: int
    rss: int
    uss: int
    anonymous: int
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
    pss = rss = uss = anonymous = 0
    regions: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = process.memory_full_info()
            of_no_file = _anonymous(process.pid)
            pss, rss, uss, anonymous = pss + info.pss, rss + info.rss, uss + info.uss, anonymous + of_no_file
            regions |= regions_of(process.pid)
    return Memory(pss, rss, uss, anonymous, sum(map(_size, regions)))


def label(process: psutil.Process) -> str:
    """The model of a stub, or the program's name."""
    model = next((Path(word).parts[-3] for word in process.cmdline() if word.endswith("/model.py")), None)
    return f"{model} ({process.pid})" if model else f"{process.name()} ({process.pid})"


def _anonymous(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return 1024 * sum(int(kib) for kib in re.findall(r"^(?:Pss_Anon|SwapPss): +(\d+) kB", text, re.MULTILINE))


def _size(region: str) -> int:
    try:
        return (SHARED_MEMORY / region).stat().st_blocks * 512
    except FileNotFoundError:
        return 0
