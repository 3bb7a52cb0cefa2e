"""Poisson load on the step scheduler beside request-level batching: the same arrivals, the same engines."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gpu_parts.both_stages import Engines, RequestBatches, System, engines_of, vectors_of
from gpu_parts.report import Report
from gpu_parts.stage_models import StageModels
from gpu_parts.traffic import images_per_s, send
from gpu_parts.tritonserver import why_no_triton
from load.arrivals import Arrival, Kind, burst, poisson
from load.records import Record

PEOPLE = 8
LOAD = 0.7
"""Of the smaller capacity of the two systems."""
Send = Callable[[Sequence[Arrival]], list[Record]]
OURS, BASELINE = "step scheduler", "request-level batching"


def load(report: Report) -> None:
    """Short and long requests in equal parts at random times: images a second, latencies, and the ratio of both."""
    steps = {"short": 1, "long": 3} if report.small else {"short": 10, "long": 50}
    kinds = [Kind(name=name, options={"steps": count, "sr_steps": count}) for name, count in steps.items()]
    precision = "fp32" if report.small else "fp16"
    with engines_of(report) as engines:
        vectors = vectors_of(engines, PEOPLE)
        triton = why_no_triton()
        share = 0.8 if triton is not None else 0.4  # of the time that is left

        @contextlib.contextmanager
        def here(make: Callable[[], System]) -> Iterator[Send]:
            system = make()
            yield lambda arrivals: send(system, arrivals, vectors)
            system.close()

        systems = {
            OURS: lambda: here(lambda: StageModels(engines, precision)),
            BASELINE: lambda: here(lambda: RequestBatches(engines)),
        }
        _compare(report, kinds, systems, share * report.left_s, "in process")
        if triton is None:
            _with_triton(report, kinds, engines, precision, vectors)


Systems = dict[str, Callable[[], contextlib.AbstractContextManager[Send]]]


def _compare(report: Report, kinds: Sequence[Kind], systems: Systems, seconds: float, where: str) -> None:
    """Capacity of both, then the same Poisson arrivals for both, as many as fit the time."""
    add, at_once = report.table(), 4 if report.small else 24
    with contextlib.ExitStack() as stack:
        senders = {name: stack.enter_context(start()) for name, start in systems.items()}
        crowd = burst(kinds, at_once, seed=0, identities=PEOPLE)
        for sender in senders.values():  # what is made at first use
            sender(burst(kinds, 2, seed=1, identities=PEOPLE))
        capacities = {name: images_per_s(sender(crowd)) for name, sender in senders.items()}
        rate = LOAD * min(capacities.values())
        spent = sum(at_once / capacity for capacity in capacities.values())
        count = 8 if report.small else int(np.clip(rate * (seconds - spent) / 2 / 1.3, 20, 300))
        arrivals = poisson(kinds, rate, count, seed=0, identities=PEOPLE)
        found = {name: sender(arrivals) for name, sender in senders.items()}
    latencies = {
        name: {
            f"{kind.name}_p{p}_s": float(np.percentile([r.latency_s for r in records if r.kind == kind.name], p))
            for kind in kinds
            for p in (50, 95)
            if any(r.kind == kind.name for r in records)
        }
        for name, records in found.items()
    }
    for name, records in found.items():
        usual = {"requests": count, "rate_per_s": rate, "capacity_per_s": capacities[name]}
        add(system=f"{name}, {where}", **usual, images_per_s=images_per_s(records), **latencies[name])
    add = report.table()
    ratios = {key: value / latencies[BASELINE][key] for key, value in latencies[OURS].items()}
    capacity = capacities[OURS] / capacities[BASELINE]
    add(ratio=f"{OURS} to {BASELINE}, {where}", capacity=capacity, **ratios)


def _with_triton(report: Report, kinds: Sequence[Kind], engines: Engines, precision: str, vectors: np.ndarray) -> None:
    """The same through two real servers, which have the machine in turns."""
    from gpu_parts import through_triton
    from load.generator import Generator, drive

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        repository = through_triton.write_models(folder, engines, precision, report.small)
        device = "cpu" if report.small else report.device

        @contextlib.contextmanager
        def at(server: Callable[[], contextlib.AbstractContextManager[str]]) -> Iterator[Send]:
            with server() as url:
                yield lambda arrivals: drive(Generator(url, vectors), arrivals)

        systems: Systems = {
            OURS: lambda: at(lambda: through_triton.step_server(repository)),
            BASELINE: lambda: at(lambda: through_triton.batch_server(folder, repository, engines, device)),
        }
        _compare(report, kinds, systems, 0.8 * report.left_s, "through Triton")
