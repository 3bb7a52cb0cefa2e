"""The parts of `gpu.py`, by name. Each runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

from gpu_parts.engines import engines
from gpu_parts.equality import bits, parity
from gpu_parts.machine import machine, memory
from gpu_parts.paper_networks import paper_speed
from gpu_parts.report import Report
from gpu_parts.row_memory import rows
from gpu_parts.training import training

__all__ = ["PARTS", "Report"]

PARTS: dict[str, Callable[[Report], None]] = {
    "machine": machine,
    "parity": parity,
    "engines": engines,
    "rows": rows,
    "paper": paper_speed,
    "training": training,
    "bits": bits,
    "memory": memory,
}
