"""The paper's networks beside eager PyTorch, torch.compile and the floor of their operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gpu_parts.report import Report
from gpu_parts.stages import Stage, conditions, images, paper
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_engine import TorchPrecision
from networks import unet_flops

OURS, COMPILED, FLOOR = "our engine", "our engine, torch.compile", "FLOP floor"
Line = Callable[[Stage, str, Callable[[], object]], None]
COMPILING_S = 30.0
"""Seconds that must be left to begin with a network; what is measured by then is written."""
COMPILING_CPU_S = 300.0
Seconds = dict[str, dict[str, float]]
"""Of a call, by way and network."""


def paper_speed(report: Report) -> None:
    """Calls of the paper's networks, the seconds of an image that follow, a trajectory; then what compiles long."""
    count: int = 2 if report.small else 16
    precision: TorchPrecision = "fp32" if report.small else "fp16"
    stages, add = paper(report.small), report.table()
    peak = report.peak_flop_s(torch.float32 if report.small else torch.float16)
    flops = {stage.name: unet_flops(stage.config) * count for stage in stages}
    calls: Seconds = {FLOOR: {name: one / peak for name, one in flops.items()}}

    def line(stage: Stage, way: str, work: Callable[[], object]) -> None:
        seconds = calls.setdefault(way, {})[stage.name] = report.seconds(work)
        rate = flops[stage.name] / seconds
        add(network=stage.name, way=way, rows=count, ms=1e3 * seconds, tflop_s=rate / 1e12, of_peak=rate / peak)

    for stage in stages:
        _time_engine(report, stage, precision, count, line, compiled=False)
        _time_eager(report, stage, precision, count, line)
    per_image = report.table()
    _per_image(report, precision, calls, count, per_image)
    _trajectories(report, precision, calls[OURS], count)
    for stage in stages:
        if report.left_s > (COMPILING_CPU_S if report.small else COMPILING_S):
            try:
                _time_engine(report, stage, precision, count, line, compiled=True)
            except Exception as error:  # no compiler here, or no PyTorch that repeats its bits: all else is measured
                add(network=stage.name, way=COMPILED, rows=count, result=f"{type(error).__name__}: {str(error)[:300]}")
    if COMPILED in calls:
        _per_image(report, precision, {COMPILED: calls[COMPILED]}, count, per_image)


def inputs_of(report: Report, stage: Stage, count: int) -> dict[str, torch.Tensor]:
    """Inputs of a call of `count` rows, on the device."""
    given = {n: np.stack([a] * count) for n, a in conditions(stage.config, 0).items()}
    shapes = input_shapes(stage.config, count)
    given |= {name: np.zeros(shapes[name], np.float32) for name in ("x", "timesteps")}
    return {name: torch.from_numpy(array).to(report.device) for name, array in given.items()}


def _time_engine(
    report: Report, stage: Stage, precision: TorchPrecision, count: int, line: Line, compiled: bool
) -> None:
    engine, there = stage.engine(report, precision, count, compiled=compiled), inputs_of(report, stage, count)
    line(stage, COMPILED if compiled else OURS, lambda: engine.run(there))
    engine.close()


def _time_eager(report: Report, stage: Stage, precision: TorchPrecision, count: int, line: Line) -> None:
    there = inputs_of(report, stage, count)
    unet = stage.weights(stage.config).to(report.device).eval()
    if precision == "fp16":
        unet.convert(torch.float16)
    with torch.inference_mode():
        line(stage, "eager", lambda: unet(**there))


def _per_image(report: Report, precision: str, calls: Seconds, count: int, add: Callable[..., None]) -> None:
    """Seconds of an image of 250, 10 and 8 steps in both stages, with guidance, as full calls would have it."""
    names = [stage.name for stage in paper(report.small)]
    for way, times in calls.items():
        if len(times) == len(names):
            base, sr = (times[name] for name in names)
            seconds = {f"seconds_{steps}+{steps}_steps": steps * (2 * base + sr) / count for steps in (250, 10, 8)}
            add(way=way if way == FLOOR else f"{way}, from calls", precision=precision, guidance=2, **seconds)


def _trajectories(report: Report, precision: TorchPrecision, calls: dict[str, float], count: int) -> None:
    """Images of the step scheduler, and the share of their time that the engine needs."""
    add, steps = report.table(), 2 if report.small else 10
    for stage in paper(report.small):
        evaluations = stage.config.evaluations_per_step * count
        engine = stage.engine(report, precision, evaluations)
        images(stage, engine, count, 1, count)
        _, seconds = images(stage, engine, count, steps, count)
        ideal = steps * calls[stage.name] * evaluations / count
        add(network=stage.name, steps=steps, images=count, seconds=seconds, share_of_engine=ideal / seconds)
        engine.close()
