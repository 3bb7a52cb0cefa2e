"""The parts of `gpu.py`, by name. Each runs in a process of its own, which imports no other part's libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

PARTS = {
    "machine": "machine.machine",
    "parity": "equality.parity",
    "engines": "engines.engines",
    "rows": "row_memory.rows",
    "paper": "paper_networks.paper_speed",
    "served": "served.served",
    "load": "poisson_load.load",
    "sharing": "sharing.sharing",
    "training": "training.training",
    "bits": "equality.bits",
    "memory": "memory.memory",
}
"""Name -> module and function."""


def part(name: str) -> Callable[[Any], None]:
    """The function of a part: takes a `report.Report`.

    Raises:
        ImportError: A library that it needs is not installed.
    """
    module, function = PARTS[name].split(".")
    found: Callable[[Any], None] = getattr(importlib.import_module(f"gpu_parts.{module}"), function)
    return found
