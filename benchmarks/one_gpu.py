"""Both stages on one GPU, by a model of the schedule: two processes, or one process with two streams or with one.

    python benchmarks/one_gpu.py

A step of n evaluations takes a + b n milliseconds alone, of which b n fill the GPU and a leave it idle (launches,
layers too small for it). A request makes its steps in the 64 px stage, then in the 256 px one. Each stage makes one
step after another, of its oldest requests up to the engine's largest batch. What differs is who computes while both
stages have a step:

    processes   the GPU alternates between two contexts in time slices, and each switch costs something
    mps         two processes under NVIDIA MPS, or one process with two streams: both compute at once; what one leaves
                idle the other takes, and what both need is divided
    one stream  one process; the stages take turns, a step is not divided

The numbers of `h100` are estimates, not measurements. The model says in which direction layouts differ, and how much
that depends on the estimates; which one is faster on a GPU is for the GPU to say.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Literal, get_args

import click
import numpy as np

Layout = Literal["processes", "mps", "one stream"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage's network and how it is sampled.

    Attributes:
        idle_ms: a, of a step: the GPU is not busy.
        busy_ms: b, of an evaluation.
        steps: Of an image.
        evaluations: Of a row in a step; 2 with guidance.
        max_batch: Most evaluations of a step.
        exact: Every step computes as many.
    """

    idle_ms: float
    busy_ms: float
    steps: int
    evaluations: int
    max_batch: int = 16
    exact: bool = False

    def step(self, rows: int) -> tuple[float, float]:
        """Milliseconds of a step of so many rows alone, and the share of them in which the GPU is busy."""
        busy = self.busy_ms * (self.max_batch if self.exact else rows * self.evaluations)
        return self.idle_ms + busy, busy / (self.idle_ms + busy)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What it does with two steps at a time.

    Attributes:
        layout: Who computes.
        slice_ms: Length of a time slice.
        switch_ms: Cost of a switch between contexts.
    """

    layout: Layout
    slice_ms: float = 2.0
    switch_ms: float = 0.2

    def rates(self, busy: Sequence[float]) -> float:
        """How fast each of the steps advances, 1 as if alone; `busy` has the share of the GPU that each would use."""
        if len(busy) < 2 or self.layout == "one stream":
            return 1.0
        if self.layout == "mps":
            return min(1.0, 1.0 / sum(busy))
        return 0.5 * self.slice_ms / (self.slice_ms + self.switch_ms)


class Simulation:
    """Requests that arrive at given times, until all are done. The result is in `latencies`, ms, by request."""

    def __init__(self, gpu: Gpu, stages: Sequence[Stage], arrivals: Sequence[float]) -> None:
        self._gpu, self._stages = gpu, stages
        self._arrivals = list(arrivals)
        self._rows: list[dict[int, int]] = [{} for _ in stages]  # steps left, by request
        self._now = 0.0
        self._running: dict[int, tuple[list[int], float, float]] = {}  # stage: its requests, ms left, share busy
        self._last = 0  # the stage that had the last step
        self.latencies = [0.0] * len(arrivals)

    def run(self) -> Simulation:
        """Runs it."""
        coming = [(time, request) for request, time in enumerate(self._arrivals)]
        heapq.heapify(coming)
        while coming or any(self._rows):
            self._start()
            rate = self._gpu.rates([busy for _, _, busy in self._running.values()])
            ends = min((left / rate for _, left, _ in self._running.values()), default=np.inf)
            until = min(self._now + ends, coming[0][0] if coming else np.inf)
            passed, self._now = until - self._now, until
            for stage, (rows, left, busy) in list(self._running.items()):
                self._running[stage] = rows, left - passed * rate, busy
                if self._running[stage][1] < 1e-9:
                    self._end(stage, self._running.pop(stage)[0])
            while coming and coming[0][0] <= self._now:
                self._rows[0][heapq.heappop(coming)[1]] = self._stages[0].steps
        return self

    def _start(self) -> None:
        """Starts a step in every stage that has none, if the layout lets it."""
        idle = [stage for stage, rows in enumerate(self._rows) if rows and stage not in self._running]
        if self._gpu.layout == "one stream":
            idle = [] if self._running else sorted(idle, key=lambda stage: stage == self._last)[:1]
        for stage in idle:
            how = self._stages[stage]
            rows = sorted(self._rows[stage])[: how.max_batch // how.evaluations]
            self._last = stage
            self._running[stage] = (rows, *how.step(len(rows)))

    def _end(self, stage: int, rows: list[int]) -> None:
        for request in rows:
            self._rows[stage][request] -= 1
            if self._rows[stage][request] == 0:
                del self._rows[stage][request]
                if stage + 1 < len(self._stages):
                    self._rows[stage + 1][request] = self._stages[stage + 1].steps
                else:
                    self.latencies[request] = self._now - self._arrivals[request]


def h100(idle_ms: float, max_batch: int, exact: bool, steps: int = 10) -> tuple[Stage, Stage]:
    """The paper's networks: 16 evaluations take 17 ms at 64 px and 50 ms at 256 px; `idle_ms` of a step are idle."""
    base, sr = ((whole - idle_ms) / 16 for whole in (17.0, 50.0))
    return (
        Stage(idle_ms, base, steps, 2, max_batch, exact),
        Stage(idle_ms, sr, steps, 1, max_batch, exact),
    )


def capacity(gpu: Gpu, stages: Sequence[Stage], requests: int = 200) -> float:
    """Images a second when all requests are there from the beginning."""
    return 1e3 * requests / max(Simulation(gpu, stages, [0.0] * requests).run().latencies)


def latencies(gpu: Gpu, stages: Sequence[Stage], per_s: float, requests: int = 1500) -> tuple[float, float]:
    """Median and 95th percentile of the latency at Poisson arrivals, ms."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1e3 / per_s, requests)).tolist()
    made = Simulation(gpu, stages, arrivals).run().latencies
    return float(np.median(made)), float(np.percentile(made, 95))


def compare(idle_ms: float, switch_ms: float, max_batch: int, exact: bool) -> list[str]:
    """The lines of a Markdown table: all layouts at the same arrivals, shares of the capacity of two processes."""
    stages = h100(idle_ms, max_batch, exact)
    gpus = [Gpu(layout, switch_ms=switch_ms) for layout in get_args(Layout)]
    least = capacity(gpus[0], stages)
    alone = sum(stage.step(1)[0] * stage.steps for stage in stages)
    lines = []
    for gpu in gpus:
        cells = [f"{capacity(gpu, stages):.1f}", f"{alone:.0f}"]
        for load in (0.5, 0.7):
            median, p95 = latencies(gpu, stages, load * least)
            cells.append(f"{median:.0f} / {p95:.0f}")
        buckets = f"exact, {max_batch}" if exact else f"fast, {max_batch}"
        lines.append(f"| {buckets} | {idle_ms:g} | {switch_ms:g} | {gpu.layout} | " + " | ".join(cells) + " |")
    return lines


@click.command()
def main() -> None:
    """Print the table of docs/decisions/one_gpu.md."""
    click.echo(
        "| buckets | idle, ms a step | switch, ms | layout | images/s | alone, ms | half load: p50 / p95, ms | "
        "70 %: p50 / p95, ms |\n|---|---|---|---|---|---|---|---|"
    )
    for max_batch, exact in ((16, True), (4, True), (16, False)):
        for idle_ms, switch_ms in ((2.0, 0.2), (6.0, 0.2), (2.0, 0.05)):
            click.echo("\n".join(compare(idle_ms, switch_ms, max_batch, exact)))


if __name__ == "__main__":
    main()
