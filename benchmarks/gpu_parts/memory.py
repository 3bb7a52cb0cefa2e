"""Memory of the device under many requests."""

from __future__ import annotations

import torch

from gpu_parts.report import Report
from gpu_parts.stages import demo, images


def memory(report: Report) -> None:
    """Memory of the device before and after many requests."""
    add = report.table()
    count = 20 if report.small else 1000
    stage = demo(report.small)[0]
    engine = stage.engine(report, "fp32", 16)
    images(stage, engine, 8, 2, 8)
    used = [] if report.small else [torch.cuda.memory_allocated()]
    _, seconds = images(stage, engine, count, 2, 8)
    if not report.small:
        used.append(torch.cuda.memory_allocated())
    growth = (used[1] - used[0]) / 2**20 if used else 0.0
    add(requests=count, seconds=seconds, growth_mib=growth)
