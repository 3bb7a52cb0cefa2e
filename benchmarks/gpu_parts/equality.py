"""How far the engines are from fp32 on the CPU, and a row from itself in other company."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np

from gpu_parts.report import Report
from gpu_parts.stages import conditions, demo, images
from id3pm.config import UNetConfig
from id3pm.engines.base import Engine
from id3pm.engines.buckets import Buckets, batch_buckets
from id3pm.engines.host_access import on_host
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import TorchPrecision, UNetEngine


def parity(report: Report) -> None:
    """Every precision beside fp32 on the CPU: one evaluation, and images after a trajectory."""
    add = report.table()
    steps, count = (2, 1) if report.small else (10, 4)
    for stage in demo(report.small):
        cpu = UNetEngine(stage.weights(stage.config), 2 * count)
        expected, _ = images(stage, cpu, count, steps, count)
        given = {n: np.ascontiguousarray(np.stack([a] * 2)) for n, a in conditions(stage.config, 0).items()}
        shape = input_shapes(stage.config, 2)["x"]
        x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        precisions: Sequence[TorchPrecision] = ("fp32",) if report.small else ("fp32", "fp16", "bf16")
        for precision in precisions:
            engine = stage.engine(report, precision, 2 * count)
            errors = []
            for t in (0.0, 500.0, 999.0):
                inputs = {"x": x, "timesteps": np.full(2, t, np.float32), **given}
                there = {name: engine.arrays.from_host(array) for name, array in inputs.items()}
                output, wanted = engine.arrays.to_host(engine.run(there))(), cpu.run(inputs)
                errors.append(float(np.abs(output - wanted).max() / np.abs(wanted).max()))
            made, _ = images(stage, engine, count, steps, count)
            mse = float(np.mean((made.astype(float) - expected) ** 2))
            psnr = 10 * np.log10(255**2 / mse) if mse else float("inf")
            add(network=stage.name, precision=precision, forward_error=max(errors), images_psnr_db=float(psnr))
            engine.close()


def bits(report: Report) -> None:
    """With `exact` and with `fast` buckets: whether a row's bits depend on its company, and what a lone row costs."""
    add, rows = report.table(), 4 if report.small else 16
    for stage in demo(report.small):
        precisions: Sequence[TorchPrecision] = ("fp32",) if report.small else ("fp32", "fp16")
        for precision in precisions:
            for kind in get_args(Buckets):
                buckets = batch_buckets(rows, kind)
                arrays = TorchArrays(report.device)
                engine = UNetEngine(stage.weights(stage.config), rows, report.device, precision, arrays, buckets)
                lone_ms = 1e3 * report.seconds(functools.partial(_caller(engine), [0]), most_s=0.5)
                found = in_companies(engine)
                add(network=stage.name, precision=precision, buckets=kind, **found, lone_row_ms=lone_ms)
                engine.close()


def in_companies(engine: Engine) -> dict[str, object]:
    """Whether a row's bits depend on how many others are in its call, and on its place among them."""
    run, rows = _caller(engine), engine.max_batch
    first = run([0])[0]
    companies = [run(range(count))[0] for count in range(1, rows + 1)]
    return {
        "equal_in_companies": f"{sum(np.array_equal(row, first) for row in companies)} of {rows}",
        "largest_difference": max(float(np.abs(row - first).max()) for row in companies),
        "place_matters": not np.array_equal(run(range(rows)), run(range(rows)[::-1])[::-1]),
    }


def _mixed_rows(config: UNetConfig, rows: int) -> dict[str, np.ndarray]:
    """Inputs of rows with conditions, noise and timesteps of their own."""
    given = [conditions(config, n) for n in range(rows)]
    stacked = {name: np.stack([one[name] for one in given]) for name in given[0]}
    noise = np.random.default_rng(0).standard_normal(input_shapes(config, rows)["x"], dtype=np.float32)
    return {**stacked, "x": noise, "timesteps": np.linspace(0, 999, rows, dtype=np.float32)}


def _caller(engine: Engine) -> Callable[[Sequence[int]], np.ndarray]:
    """A function that evaluates some of `max_batch` rows in one call, from host to host."""
    stacked, inner = _mixed_rows(engine.config, engine.max_batch), on_host(engine)

    def run(which: Sequence[int]) -> Any:
        return inner.run({name: np.ascontiguousarray(array[list(which)]) for name, array in stacked.items()})

    return run
