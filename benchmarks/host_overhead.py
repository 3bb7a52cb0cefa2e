"""The host's own time for a step of rows that live on a device, and the use of the device that it allows.

    python benchmarks/host_overhead.py --out out/host

The device is simulated. Its arrays have shapes and no numbers, so that an operation costs what it costs to ask for it;
it needs `DEVICE_MS` for a step, and the host waits for that where the sampling loop waits. What remains is the host's
own: scheduling, coefficients, asking for operations, waiting for noise, answers. Beside it the processor time of the
sampling loop's thread, which other work on the machine changes little, and the same loop with numpy arrays and an
engine that answers at once, as it was before rows lived on the device.

A second table is about noise, which threads draw ahead: what the noise of a step takes one core, whether a second
thread makes the first one slower, and by arithmetic how many cores a device needs so that no step waits for it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    DiffusionConfig,
    SamplingOptions,
    UNetConfig,
)
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.engines.arrays import HOST, NOISE_THREADS, Array, Arrays
from id3pm.engines.inputs import EngineInputs, input_shapes, output_shape
from id3pm.sampling.request import SampleRequest
from id3pm.sampling.scheduler import StepScheduler
from simulated_device import Nothing, SimulatedDevice

DEVICE_MS = {"base": 17.0, "sr": 50.0}
"""A step of 16 rows of the paper's networks on an H100, estimated from their operations."""
STEPS = 40
SKIPPED = 5  # the first steps draw x_T


class InstantEngine:
    """Answers at once: on the host with zeros, on the device with nothing."""

    def __init__(self, config: UNetConfig, rows: int, device: SimulatedDevice | None) -> None:
        self.config, self.max_batch = config, 2 * rows
        self.arrays: Arrays = device or HOST
        self.description = "instant"
        self.times: list[float] = []
        self.waited: list[float] = []
        self.computed: list[float] = []
        self._device = device
        self._zeros = np.zeros(output_shape(config, 2 * rows), np.float32)

    def run(self, inputs: EngineInputs) -> Array:
        """See `Engine.run`."""
        self.times.append(time.perf_counter())
        self.computed.append(time.thread_time())
        self.waited.append(self._device.waited_s if self._device else 0.0)
        if self._device is None:
            return self._zeros[: len(inputs["x"])]
        self._device.begin()
        return Nothing(output_shape(self.config, inputs["x"].shape[0]))

    def close(self) -> None:
        """Nothing to free."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A stage and how it is sampled."""

    stage: str
    name: str
    options: Mapping[str, Any]

    @property
    def network(self) -> tuple[UNetConfig, DiffusionConfig, int]:
        """Architecture, process, and number in the seed contract."""
        if self.stage == "base":
            return PAPER_BASE_64, PAPER_BASE_DIFFUSION, STAGE_BASE
        return PAPER_SR_256, PAPER_SR_DIFFUSION, STAGE_SR


CASES = (
    Case("base", "ddpm, guidance 2, threshold", {"guidance_scale": 2.0, "dynamic_threshold": 0.99}),
    Case("base", "dpmpp_2m, guidance 2", {"guidance_scale": 2.0, "sampler": "dpmpp_2m"}),
    Case("sr", "ddpm", {"guidance_scale": 1.0}),
    Case("sr", "dpmpp_2m, consistency", {"guidance_scale": 1.0, "sampler": "dpmpp_2m", "consistency": 1.0}),
)


def measure(case: Case, rows: int, device: SimulatedDevice | None) -> dict[str, float]:
    """Median milliseconds of a step of `rows` rows, of the host's own part, and of the loop's processor time in it.

    And the median milliseconds of the host's part for which the loop waited for noise.
    """
    config, diffusion, stage = case.network
    engine = InstantEngine(config, rows, device)
    scheduler = StepScheduler(engine, diffusion, stage, max_rows=rows)
    options = SamplingOptions(steps=STEPS, **case.options)
    rng = np.random.default_rng(0)
    given = {
        name: rng.uniform(-1, 1, shape[1:]).astype(np.float32)
        for name, shape in input_shapes(config, 1).items()
        if name not in ("x", "timesteps")
    }
    left, noise_waits = threading.Semaphore(0), _timed_noise(scheduler)
    scheduler.submit_all(
        [
            (SampleRequest(id=str(row), seed=row, options=options, **given), lambda _: left.release())
            for row in range(rows)
        ]
    )
    for _ in range(rows):
        assert left.acquire(timeout=600)
    scheduler.close()
    steps, waits = np.diff(engine.times)[SKIPPED:], np.diff(engine.waited)[SKIPPED:]
    return {
        "step_ms": 1e3 * statistics.median(steps.tolist()),
        "host_ms": 1e3 * statistics.median((steps - waits).tolist()),
        "loop_ms": 1e3 * statistics.median(np.diff(engine.computed)[SKIPPED:].tolist()),
        "noise_wait_ms": 1e3 * statistics.median(noise_waits[SKIPPED:]),
    }


def _timed_noise(scheduler: StepScheduler) -> list[float]:
    """Seconds that each step's noise was waited for, from now on; the first is of x_T."""
    source, waits = scheduler._batch.noise, []
    take = source.take

    def timed(*given: Any) -> Any:
        start = time.perf_counter()
        taken = take(*given)
        waits.append(time.perf_counter() - start)
        return taken

    source.take = timed  # type: ignore[method-assign]
    return waits


def noise_lines(rows: int, rounds: int) -> list[dict[str, Any]]:
    """What the noise of a step takes, by stage: measured here, and what follows for a device.

    The processor time of `rows` draws, in one thread and shared by two at once. A loop needs a core of its own, so
    a machine of 4 cores draws with 3 threads, and a step of the device waits for no noise where it takes longer than
    the noise does with them.
    """
    lines = []
    for stage, (number, config) in {"base": (STAGE_BASE, PAPER_BASE_64), "sr": (STAGE_SR, PAPER_SR_256)}.items():
        shape = (3, config.image_size, config.image_size)
        alone, beside = (
            statistics.median(_drawing_s(number, shape, rows, threads) for _ in range(rounds)) for threads in (1, 2)
        )
        device_s, threads = DEVICE_MS[stage] / 1e3, min(NOISE_THREADS, 4 - 1)
        lines.append(
            {
                "stage": stage,
                "numbers": rows * int(np.prod(shape)),
                "core_ms": 1e3 * alone,
                "two_threads_ratio": beside / alone,
                "device_ms": DEVICE_MS[stage],
                "cores": alone / device_s,
                "with_4_cores_ms": 1e3 * beside / threads,
                "faster_device": device_s / (beside / threads),
            }
        )
    return lines


def _drawing_s(stage: int, shape: tuple[int, ...], rows: int, threads: int) -> float:
    """Processor seconds of `rows` draws, by so many threads at once; memory is used again."""

    def draw(thread: int) -> float:
        out = np.empty(shape, np.float32)
        noise(thread, stage, 0, shape, out=out)
        ready.wait(60)
        start = time.thread_time()
        for row in range(thread, rows, threads):
            noise(row, stage, 1, shape, out=out)
        return time.thread_time() - start

    ready = threading.Barrier(threads)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(draw, range(threads)))


def noise_table(lines: list[dict[str, Any]]) -> str:
    """The lines of `noise_lines` in Markdown."""
    text = [
        "| stage | numbers a step | of one core, ms | by two threads at once | device, ms | cores that it keeps busy | "
        "a step's noise with 4 cores, ms | the device may be faster by |",
        "|" + "---|" * 8,
    ]
    text += [
        f"| {line['stage']} | {line['numbers']} | {line['core_ms']:.1f} | x {line['two_threads_ratio']:.2f} | "
        f"{line['device_ms']:.0f} | {line['cores']:.2f} | {line['with_4_cores_ms']:.1f} | "
        f"x {line['faster_device']:.1f} |"
        for line in lines
    ]
    return "\n".join(text) + "\n"


def measured(rows: int, rounds: int) -> list[dict[str, Any]]:
    """Every case, host loop and device rows in turn."""
    lines = []
    for case in CASES:
        pairs = []
        for _ in range(rounds):
            device = SimulatedDevice(DEVICE_MS[case.stage] / 1e3)
            pairs.append((measure(case, rows, None), measure(case, rows, device)))
        loop = statistics.median(pair[0]["host_ms"] for pair in pairs)
        own = statistics.median(pair[1]["host_ms"] for pair in pairs)
        computing = statistics.median(pair[1]["loop_ms"] for pair in pairs)
        step = statistics.median(pair[1]["step_ms"] for pair in pairs)
        waits = statistics.median(pair[1]["noise_wait_ms"] for pair in pairs)
        lines.append(
            {
                "stage": case.stage,
                "options": case.name,
                "host_loop_ms": loop,
                "device_rows_ms": own,
                "noise_wait_ms": waits,
                "loop_ms": computing,
                "device_ms": DEVICE_MS[case.stage],
                "use_host_loop": DEVICE_MS[case.stage] / (DEVICE_MS[case.stage] + loop),
                "use_device_rows": DEVICE_MS[case.stage] / max(step, DEVICE_MS[case.stage]),
            }
        )
    return lines


def table(lines: list[dict[str, Any]], rows: int) -> str:
    """The lines in Markdown."""
    text = [
        f"| {rows} rows | rows in host memory: host, ms a step | rows on the device: host, ms a step | "
        "of that waiting for noise | the loop's processor time | device, ms | use of the device: host memory | "
        "on the device |",
        "|" + "---|" * 8,
    ]
    text += [
        f"| {line['stage']}, {line['options']} | {line['host_loop_ms']:.1f} | {line['device_rows_ms']:.2f} | "
        f"{line['noise_wait_ms']:.2f} | {line['loop_ms']:.2f} | {line['device_ms']:.0f} | "
        f"{line['use_host_loop']:.0%} | "
        f"{line['use_device_rows']:.0%} |"
        for line in lines
    ]
    return "\n".join(text) + "\n"


@click.command()
@click.option("--rows", type=click.IntRange(1), default=16, show_default=True, help="Images at a time.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of which the median is reported.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for host_overhead.json and .md.")
def main(rows: int, rounds: int, out: Path) -> None:
    """Measure the host's own time per step, with rows in host memory and on a simulated device."""
    lines, drawing = measured(rows, rounds), noise_lines(rows, rounds)
    text = table(lines, rows) + "\n" + noise_table(drawing)
    out.mkdir(parents=True, exist_ok=True)
    (out / "host_overhead.json").write_text(json.dumps({"steps": lines, "noise": drawing}, indent=1) + "\n")
    (out / "host_overhead.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
