"""Where a part of `gpu.py` writes, and its clock. Tables are written as they grow, so a limit loses nothing."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Table = list[dict[str, Any]]


@dataclasses.dataclass
class Report:
    """Where a part writes, and what it may use.

    Attributes:
        file: Its JSON file.
        device: A torch device.
        limit_s: Seconds after which the part is ended.
    """

    file: Path
    device: str
    limit_s: float
    tables: list[Table] = dataclasses.field(default_factory=list)
    start: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        """Whether this is a test on the CPU."""
        return torch.device(self.device).type == "cpu"

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.limit_s - (time.monotonic() - self.start)

    def table(self) -> Callable[..., None]:
        """A new table; call it with the cells of a line."""
        lines: Table = []
        self.tables.append(lines)

        def add(**cells: object) -> None:
            lines.append({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in cells.items()})
            self.file.write_text(json.dumps({"tables": [table for table in self.tables if table]}))

        return add

    def synchronize(self) -> None:
        """Waits for the device."""
        if not self.small:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Gives memory that nothing uses any more back to the device."""
        gc.collect()
        if not self.small:
            torch.cuda.empty_cache()

    def peak_flop_s(self, dtype: torch.dtype) -> float:
        """Operations a second of a large matrix product, which no network can exceed."""
        size = 256 if self.small else 8192
        a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
        return 2 * size**3 / self.seconds(functools.partial(torch.matmul, a, b), most_s=0.5)

    def seconds(self, work: Callable[[], object], least: int = 3, most_s: float = 3.0) -> float:
        """Median seconds of a call, after one that warms up."""
        most_s = 0.0 if self.small else most_s
        work()
        self.synchronize()
        times: list[float] = []
        while len(times) < least or (sum(times) < most_s and len(times) < 30):
            start = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times)
