"""What the device is, and its peaks."""

from __future__ import annotations

import torch

from gpu_parts.report import Report


def machine(report: Report) -> None:
    """What the device is, and its peaks."""
    add = report.table()
    add(what="torch", value=torch.__version__)
    if not report.small:
        properties = torch.cuda.get_device_properties(report.device)
        add(what="device", value=f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        add(what="CUDA", value=str(torch.version.cuda))
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        add(what=f"matrix product {name}, TFLOP/s", value=report.peak_flop_s(dtype) / 1e12)
    count = (1 << 20) if report.small else (1 << 28)
    host = torch.empty(count, dtype=torch.uint8, pin_memory=not report.small)
    there = host.to(report.device)
    for what, work in (
        ("copy to the device, GB/s", lambda: there.copy_(host, non_blocking=True)),
        ("copy from the device, GB/s", lambda: host.copy_(there, non_blocking=True)),
        ("copy on the device, GB/s", lambda: there.clone()),
    ):
        add(what=what, value=count / report.seconds(work, most_s=0.5) / 1e9)
