"""Memory of the processes of a server.

PSS counts a page that n processes share as 1/n of a page in each, so its sum over all of them is true; but it changes
when others that share a library come and go, and so does USS, what a process has for itself. Both also follow the
system's page cache, which takes pages of libraries and engines back and reads them again. Anonymous memory (heaps and
stacks, in memory or swapped) does neither: there a leak shows, or in the stubs' shared memory, which is counted apart.
RSS counts shared pages once for each process.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from id3pm.serving.launcher.shared_memory import SHARED_MEMORY, regions_of

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
    return together([one for process in processes if (one := of_process(process)) is not None])


@dataclasses.dataclass(frozen=True)
class Process:
    """Bytes of one process, and its regions of /dev/shm, which it may share."""

    label: str
    fields: Mapping[str, int]
    regions: frozenset[str]

    @property
    def anonymous(self) -> int:
        """Of no file."""
        return self.fields["Pss_Anon"] + self.fields["SwapPss"]


def of_process(process: psutil.Process) -> Process | None:
    """One process, in a single look, for the kernel walks all its pages; `None` where it has ended."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        fields = {name: 1024 * int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
        return Process(label(process), fields, frozenset(regions_of(process.pid)))
    except (psutil.Error, OSError):
        return None


def together(processes: Sequence[Process]) -> Memory:
    """The sum of several."""

    def total(*names: str) -> int:
        return sum(process.fields[name] for process in processes for name in names)

    regions = frozenset[str]().union(*(process.regions for process in processes))
    return Memory(
        pss=total("Pss"),
        rss=total("Rss"),
        uss=total("Private_Clean", "Private_Dirty"),
        anonymous=sum(process.anonymous for process in processes),
        shm=sum(map(_size, regions)),
    )


def label(process: psutil.Process) -> str:
    """The model of a stub, or the program's name."""
    model = next((Path(word).parts[-3] for word in process.cmdline() if word.endswith("/model.py")), None)
    return f"{model} ({process.pid})" if model else f"{process.name()} ({process.pid})"


def _size(region: str) -> int:
    try:
        return (SHARED_MEMORY / region).stat().st_blocks * 512
    except FileNotFoundError:
        return 0
