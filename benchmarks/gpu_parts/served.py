"""Images served against images in process: what the serving code costs, and Triton where it is installed."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpu_parts.both_stages import Engines, InProcess, System, engines_of, vectors_of
from gpu_parts.report import Report
from gpu_parts.stage_models import StageModels
from gpu_parts.traffic import images_per_s, send
from gpu_parts.tritonserver import why_no_triton
from load.arrivals import Kind, burst

ROUNDS = 3


def served(report: Report) -> None:
    """Images at once and a lone one: in process, through the stages' models, through Triton."""
    add = report.table()
    count, steps = (3, 2) if report.small else (16, 10)
    precision = "fp32" if report.small else "fp16"
    with engines_of(report) as engines:
        vectors = vectors_of(engines, count)
        systems: dict[str, Callable[[], System]] = {
            "in process, both stages on one stream": lambda: InProcess(engines),
            "served stages, without Triton": lambda: StageModels(engines, precision),
        }
        own = 0.0
        for name, start in systems.items():
            rates, alone_s = _measured(start(), vectors, steps)
            own = own or statistics.median(rates)
            _line(add, name, count, steps, rates, alone_s, own)
        with engines_of(report, own_streams=True) as others:
            rates, alone_s = _measured(InProcess(others), vectors, steps)
            _line(add, "in process, a stream for each stage", count, steps, rates, alone_s, own)
        _with_triton(report, add, engines, precision, vectors, steps)


def _measured(system: System, vectors: np.ndarray, steps: int) -> tuple[list[float], float]:
    """Images a second of every round, and the seconds of a lone image."""
    kind, count = Kind(name="image", options={"steps": steps}), len(vectors)
    send(system, burst([kind], 1, seed=0, identities=1), vectors)
    rates = [images_per_s(send(system, burst([kind], count, seed=n, identities=count), vectors)) for n in range(ROUNDS)]
    alone = [1 / images_per_s(send(system, burst([kind], 1, seed=n, identities=1), vectors)) for n in range(ROUNDS)]
    system.close()
    return rates, statistics.median(alone)


def _line(
    add: Callable[..., None], name: str, count: int, steps: int, rates: list[float], alone_s: float, own: float
) -> None:
    rate = statistics.median(rates)
    add(way=name, images=count, steps=steps, images_per_s=rate, share=rate / own, lone_image_s=alone_s)


def _with_triton(
    report: Report, add: Callable[..., None], engines: Engines, precision: str, vectors: np.ndarray, steps: int
) -> None:
    """The same through a real server. On the CPU its engines are onnxruntime's, so it has an own comparison in process.

    The line says what is missing where there is no server.
    """
    if (missing := why_no_triton()) is not None:
        add(way=f"through Triton: not here ({missing[:120]})")
        return
    from gpu_parts import through_triton
    from id3pm.pipeline import Pipeline

    count, own = len(vectors), 0.0
    with tempfile.TemporaryDirectory() as folder:
        repository = through_triton.write_models(Path(folder), engines, precision, report.small)
        with Pipeline.load(repository, "cpu" if report.small else report.device) as pipeline:
            in_process = through_triton.timed(
                lambda images: pipeline.generate(vectors[0], range(images), steps=steps, sr_steps=steps), count
            )
        own = statistics.median(in_process[0])
        _line(add, "Pipeline, in process", count, steps, *in_process, own)
        with through_triton.step_server(repository) as url, through_triton.client_of(url) as client:
            made = through_triton.timed(
                lambda images: client.generate(vectors[0], range(images), steps=steps, sr_steps=steps), count
            )
        _line(add, "through Triton", count, steps, *made, own)
