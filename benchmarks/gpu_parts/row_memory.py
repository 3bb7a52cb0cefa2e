"""Rows in host memory beside rows on the device."""

from __future__ import annotations

from gpu_parts.report import Report
from gpu_parts.stages import demo, images, paper
from id3pm.engines.arrays import HOST
from id3pm.engines.torch_arrays import TorchArrays


def rows(report: Report) -> None:
    """Rows in host memory beside rows on the device: images per second."""
    add = report.table()
    steps = 2 if report.small else 10
    for stage in paper(True) if report.small else [*demo(False), *paper(False)]:
        for count in (1, 4) if report.small else (1, 16):
            evaluations = stage.config.evaluations_per_step * count
            rates = {}
            for name, arrays in (("host", HOST), ("device", TorchArrays(report.device))):
                engine = stage.engine(report, "fp32" if report.small else "fp16", evaluations, arrays)
                images(stage, engine, count, steps, count)
                rates[name] = count / min(images(stage, engine, count, steps, count)[1] for _ in range(3))
                engine.close()
            add(
                network=stage.name,
                rows=count,
                images_per_s_host=rates["host"],
                images_per_s_device=rates["device"],
                ratio=rates["device"] / rates["host"],
            )
            if report.left_s < 20 and not report.small:
                return
