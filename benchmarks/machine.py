"""The machine of a measurement, and the peak memory of a process."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "i8mm", "bf16")


def machine() -> dict[str, Any]:
    """Processor, cores, the instructions that matter here, memory, Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    field = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = field.get("flags", field.get("Features", "")).split()
    return {
        "cpu": field.get("model name", platform.processor() or platform.machine()),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "python": platform.python_version(),
    }


def processor_s(pid: int) -> float:
    """Processor seconds that a process has had so far, all its threads together; to the nanosecond, unlike `/proc`.

    Raises:
        OSError: There is no such process.
    """
    return time.clock_gettime((~pid << 3) | 2)  # the id that Linux gives its clock, see clock_getcpuclockid(3)


def peak_rss() -> int:
    """Most bytes that this process has had in memory since its program started."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure begins with that of the process that started this one
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
