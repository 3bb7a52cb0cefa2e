"""Our server beside request-level batching: the same arrivals, the same engines, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from id3pm.serving.launcher.triton_server import TritonServer
from load import baseline
from load.arrivals import Arrival, Kind, burst, poisson
from load.generator import Digests, Generator, drive
from load.plain_triton import PlainTriton
from load.summary import ALL, seconds, summarise
from report import table

P95_SHARE = 0.5
"""The target: p95 of the short requests, ours to the baseline's."""
TOLERANCE = 0.01
"""Of the throughput at equal arrivals: both serve all that comes, and a run is as long as its last requests take."""
CAPACITY_TOLERANCE = 0.05
"""Of the capacity: rounds of one system differ by so much."""
OURS, BASELINE = "step scheduler", "request-level batching"


def compare(
    repository: Path,
    out: Path,
    identities: NDArray[np.float32],
    known: Digests,
    kinds: Sequence[Kind],
    *,
    known_seeds: int,
    load: float,
    requests: int,
    capacity_requests: int,
    capacity_rounds: int,
    seeds: Sequence[int],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures both systems, JSON-ready.

    Args:
        repository: The engines, and our models.
        out: The baseline's repository is built in here.
        identities: ID vectors.
        known: Digests of known images; some requests ask for them, and both systems must give them.
        kinds: The mixture; the first is the one whose p95 is compared.
        known_seeds: How many images of each kind are known.
        load: Rate as a share of the capacity: of the smaller one, so that neither system drowns.
        requests: Of each run.
        capacity_requests: Sent at once to measure the capacity.
        capacity_rounds: How often that is measured; the systems take turns, and medians count.
        seeds: One pair of runs for each; the systems take turns in going first.
        say: Is told what is going on.
    """
    folder = baseline.build(out / "baseline_repository", repository)
    systems: Mapping[str, Callable[[], Any]] = {
        OURS: lambda: TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0),
        BASELINE: lambda: PlainTriton(folder),
    }
    flood = burst(kinds, capacity_requests, seed=seeds[0], identities=len(identities))
    floods: dict[str, list[float]] = {name: [] for name in systems}
    idle: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(capacity_rounds):
        for name, start in systems.items():
            say(f"capacity of {name}: {capacity_requests} requests at once, {number + 1} of {capacity_rounds}")
            with start() as server:
                before = psutil.cpu_times()
                records = drive(Generator(server.grpc_url, identities), flood)
                idle[name].append(_idle_share(before, psutil.cpu_times()))
            floods[name].append(summarise(records)["kinds"][ALL]["images_per_s"])
    capacities = {name: float(np.median(found)) for name, found in floods.items()}
    rate = load * min(capacities.values())
    if not rate:
        raise RuntimeError(f"no images came back: {floods}")
    runs: dict[str, list[Any]] = {name: [] for name in systems}
    for number, seed in enumerate(seeds):
        arrivals: list[Arrival] = poisson(
            kinds, rate, requests, seed=seed, identities=len(identities), known=0.25, known_seeds=known_seeds
        )
        for name in list(systems) if number % 2 == 0 else list(systems)[::-1]:
            say(f"{name}: {requests} requests at {rate:.3g} a second, seed {seed}")
            with systems[name]() as server:
                runs[name].append(drive(Generator(server.grpc_url, identities, known), arrivals))
    return {
        "load": load,
        "rate": rate,
        "requests": requests,
        "seeds": list(seeds),
        "capacity_images_per_s": capacities,
        "capacity_rounds": floods,
        "idle_share": {name: float(np.median(found)) for name, found in idle.items()},
        "kinds": [kind.name for kind in kinds],
        "systems": {
            name: {
                "runs": [summarise(records) for records in every],
                "latencies_s": {
                    kind.name: [r.latency_s for records in every for r in records if _counts(r, kind)] for kind in kinds
                },
            }
            for name, every in runs.items()
        },
    }


def _idle_share(before: Any, after: Any) -> float:
    """The part of the cores' time in which they had nothing to do, of two `psutil.cpu_times()`."""
    spent = [end - start for start, end in zip(before, after, strict=True)]
    return float((after.idle - before.idle) / sum(spent))


def _counts(record: Any, kind: Kind) -> bool:
    return bool(record.kind == kind.name and record.outcome == "ok")


def verdicts(results: Mapping[str, Any]) -> dict[str, Any]:
    """p95 of the first kind over all runs, total throughput (mean of the runs), and which targets are met.

    Throughput at equal arrivals, below the capacity, hides a loss: so the capacity is judged, too.
    """
    short = results["kinds"][0]
    p95 = {
        name: float(np.percentile(system["latencies_s"][short], 95)) if system["latencies_s"][short] else None
        for name, system in results["systems"].items()
    }
    runs = {
        name: [run["kinds"][ALL]["images_per_s"] for run in system["runs"]]
        for name, system in results["systems"].items()
    }
    throughput = {name: float(np.mean(every)) for name, every in runs.items()}
    every = [run["kinds"][ALL] for system in results["systems"].values() for run in system["runs"]]
    ratio = p95[OURS] / p95[BASELINE] if p95[OURS] is not None and p95[BASELINE] else None
    capacities = results["capacity_images_per_s"]
    wrong, unexpected = (sum(group[key] for group in every) for key in ("wrong", "unexpected"))
    targets = {
        "short_tail": ratio is not None and ratio <= P95_SHARE,
        "no_less_throughput": throughput[OURS] >= (1 - TOLERANCE) * throughput[BASELINE],
        "no_less_capacity": capacities[OURS] >= (1 - CAPACITY_TOLERANCE) * capacities[BASELINE],
        "clean": not wrong and not unexpected,
    }
    return {
        "p95_s": p95,
        "p95_ratio": ratio,
        "images_per_s": throughput,
        "throughput_ratio": _ratio(throughput[OURS], throughput[BASELINE]),
        "throughput_ratios": _ratios(runs),
        "capacity_ratio": _ratio(capacities[OURS], capacities[BASELINE]),
        "capacity_ratios": _ratios(results["capacity_rounds"]),
        "wrong": wrong,
        "unexpected": unexpected,
        **targets,
        "met": all(targets.values()),
    }


def _ratios(measured: Mapping[str, Sequence[float]]) -> list[float]:
    """Ours to the baseline's, pair by pair."""
    return [_ratio(ours, other) for ours, other in zip(measured[OURS], measured[BASELINE], strict=True)]


def _ratio(ours: float, other: float) -> float:
    return ours / other if other else math.inf


def _listed(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.3f}x" for ratio in ratios)


def markdown(results: Mapping[str, Any]) -> list[str]:
    """Table and verdict."""
    judged = verdicts(results)
    lines = [
        f"{results['requests']} requests a run, Poisson at {results['load']:.0%} of the smaller capacity "
        f"({results['rate']:.3g} a second), seeds {', '.join(map(str, results['seeds']))}.",
        "",
    ]
    rows = []
    for name, system in results["systems"].items():
        cells = []
        for latencies in system["latencies_s"].values():
            cells += [seconds(float(np.percentile(latencies, p))) if latencies else "" for p in (50, 95)]
        capacity = results["capacity_images_per_s"][name]
        rows.append([name, f"{capacity:.3g}", *cells, f"{judged['images_per_s'][name]:.3g}"])
    header = ["system", "capacity, images/s", *(f"{kind} p{p}, s" for kind in results["kinds"] for p in (50, 95))]
    lines += table([*header, "images/s"], rows)
    if judged["p95_ratio"] is not None:
        lines += ["", *table(["asked for, beside the baseline", "measured", ""], _judgements(results, judged))]
    lines += [
        "",
        f"While the capacity was measured the cores idled for {results['idle_share'][OURS]:.0%} of their time, the "
        f"baseline's for {results['idle_share'][BASELINE]:.0%}.",
    ]
    return lines


def _judgements(results: Mapping[str, Any], judged: Mapping[str, Any]) -> list[list[str]]:
    rows = [
        (f"p95 of {results['kinds'][0]} <= {P95_SHARE:g}x", f"{judged['p95_ratio']:.2f}x", "short_tail"),
        (
            f"no less throughput at equal arrivals, to {TOLERANCE:.0%}",
            f"{judged['throughput_ratio']:.3f}x ({_listed(judged['throughput_ratios'])})",
            "no_less_throughput",
        ),
        (
            f"no less capacity, to {CAPACITY_TOLERANCE:.0%}: medians (rounds)",
            f"{judged['capacity_ratio']:.3f}x ({_listed(judged['capacity_ratios'])})",
            "no_less_capacity",
        ),
        ("wrong images, requests that did not end well: 0", f"{judged['wrong']}, {judged['unexpected']}", "clean"),
    ]
    return [[asked, measured, "met" if judged[target] else "**missed**"] for asked, measured, target in rows]
