"""The paper's networks beside eager PyTorch and torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gpu_parts.report import Report
from gpu_parts.stages import Stage, conditions, images, paper
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_engine import TorchPrecision
from networks import unet_flops


def paper_speed(report: Report) -> None:
    """The paper's networks: a call beside eager PyTorch and torch.compile, and the seconds of an image."""
    add, count = report.table(), 2 if report.small else 16
    precision: TorchPrecision = "fp32" if report.small else "fp16"
    calls: dict[str, float] = {}
    for stage in paper(report.small):
        flops = unet_flops(stage.config)
        given = {n: np.stack([a] * count) for n, a in conditions(stage.config, 0).items()}
        shapes = input_shapes(stage.config, count)
        given |= {name: np.zeros(shapes[name], np.float32) for name in ("x", "timesteps")}
        there = {name: torch.from_numpy(array).to(report.device) for name, array in given.items()}

        def line(name: str, work: Callable[[], object], stage: Stage = stage, flops: int = flops) -> None:
            seconds = report.seconds(work)
            calls.setdefault(stage.name, seconds)
            add(network=stage.name, way=name, rows=count, ms=1e3 * seconds, tflop_s=flops * count / seconds / 1e12)

        engine = stage.engine(report, precision, count)
        line(f"our engine {precision}", lambda engine=engine, there=there: engine.run(there))  # type: ignore[misc]
        engine.close()
        unet = stage.weights(stage.config).to(report.device).eval()
        if precision == "fp16":
            unet.convert(torch.float16)
        with torch.inference_mode():
            line(f"eager {precision}", lambda unet=unet, there=there: unet(**there))  # type: ignore[misc]
            if not report.small and report.left_s > 60:
                compiled = torch.compile(unet)
                line(f"torch.compile {precision}", lambda c=compiled, there=there: c(**there))  # type: ignore[misc]
    add = report.table()
    base, sr = (calls[stage.name] for stage in paper(report.small))
    for steps in (250, 10, 8):
        seconds = steps * (2 * base + sr) / count
        add(steps=f"{steps} + {steps}, guidance 2", seconds_per_image_from_calls=seconds, images_per_s=1 / seconds)
    measured, steps = report.table(), 2 if report.small else 10
    for stage in paper(report.small):
        evaluations = 2 * count if stage.config.identity_dim else count
        engine = stage.engine(report, precision, evaluations)
        images(stage, engine, count, 1, count)
        _, seconds = images(stage, engine, count, steps, count)
        ideal = steps * calls[stage.name] * evaluations / count
        measured(network=stage.name, steps=steps, images=count, seconds=seconds, share_of_engine=ideal / seconds)
        engine.close()
