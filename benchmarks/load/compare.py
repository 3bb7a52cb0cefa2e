"""Our server compared with request-level batching: same arrivals, same engines, in alternating rounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import numpy as np
import psutil

from id3pm.command_options import option
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from load import baseline
from load.arrivals import Kind
from load.plain_triton import PlainTriton
from load.records import Record
from load.running import MixtureOptions, Traffic, say
from load.summary import ALL, seconds, summarise
from report import table

P95_SHARE = 0.5
"""The target: p95 of the short requests, ours to the baseline's."""
TOLERANCE = 0.01
"""Of the throughput at equal arrivals: both serve all that comes, and a run is as long as its last requests take."""
CAPACITY_TOLERANCE = 0.05
"""Of the capacity: rounds of one system differ by so much."""
OURS, BASELINE = "step scheduler", "request-level batching"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(MixtureOptions):
    """The options of the comparison.

    The rate is a share of the smaller capacity, so that neither system drowns. Systems take turns in all rounds.
    """

    load: float = option(type=click.FloatRange(0, min_open=True), default=0.7, show_default=True)
    requests: int = option(type=click.IntRange(1), default=80, show_default=True, help="Of each run.")
    capacity_requests: int = option(type=click.IntRange(1), default=24, show_default=True, help="Sent at once.")
    capacity_rounds: int = option(type=click.IntRange(1), default=3, show_default=True, help="Of each system, in turn.")
    repeats: int = option(
        type=click.IntRange(1), default=2, show_default=True, help="Pairs of runs, another seed each."
    )

    @property
    def seeds(self) -> range:
        """Of the pairs of runs."""
        return range(self.seed, self.seed + self.repeats)


Systems = Mapping[str, Callable[[], TritonServer | PlainTriton]]
"""Name -> a server that is not started."""


def compare(options: CompareOptions, traffic: Traffic) -> dict[str, Any]:
    """Measures both systems, JSON-ready; p95 is compared for the first kind of the traffic."""
    folder = baseline.build(options.out / "baseline_repository", options.repository)
    systems: Systems = {
        OURS: lambda: TritonServer(options.repository, ServerSettings.on_free_ports()),
        BASELINE: lambda: PlainTriton(folder),
    }
    floods, idle = _capacities(options, traffic, systems)
    capacities = {name: float(np.median(found)) for name, found in floods.items()}
    rate = options.load * min(capacities.values())
    if not rate:
        raise RuntimeError(f"no images came back: {floods}")
    runs = _runs(options, traffic, systems, rate)
    return {
        "load": options.load,
        "rate": rate,
        "requests": options.requests,
        "seeds": list(options.seeds),
        "capacity_images_per_s": capacities,
        "capacity_rounds": floods,
        "idle_share": {name: float(np.median(found)) for name, found in idle.items()},
        "kinds": [kind.name for kind in traffic.kinds],
        "systems": {
            name: {
                "runs": [summarise(records) for records in every],
                "latencies_s": {
                    kind.name: [r.latency_s for records in every for r in records if _counts(r, kind)]
                    for kind in traffic.kinds
                },
            }
            for name, every in runs.items()
        },
    }


def _capacities(
    options: CompareOptions, traffic: Traffic, systems: Systems
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Images a second of each system in each round when all requests come at once, and the cores' idle share."""
    count, flood = options.capacity_requests, traffic.burst(options.capacity_requests, options.seed)
    floods: dict[str, list[float]] = {name: [] for name in systems}
    idle: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(options.capacity_rounds):
        for name, start in systems.items():
            say(f"capacity of {name}: {count} requests at once, {number + 1} of {options.capacity_rounds}")
            with start() as server:
                before = psutil.cpu_times()
                records = traffic.send(server.grpc_url, flood)
                idle[name].append(_idle_share(before, psutil.cpu_times()))
            floods[name].append(summarise(records)["kinds"][ALL]["images_per_s"])
    return floods, idle


def _runs(options: CompareOptions, traffic: Traffic, systems: Systems, rate: float) -> dict[str, list[list[Record]]]:
    """The records of each system's runs: the same arrivals for both."""
    runs: dict[str, list[list[Record]]] = {name: [] for name in systems}
    for number, seed in enumerate(options.seeds):
        arrivals = traffic.arrivals(rate, options.requests, seed=seed, known=0.25)
        for name in list(systems) if number % 2 == 0 else list(systems)[::-1]:
            say(f"{name}: {options.requests} requests at {rate:.3g} a second, seed {seed}")
            with systems[name]() as server:
                runs[name].append(traffic.send(server.grpc_url, arrivals))
    return runs


def _idle_share(before: Any, after: Any) -> float:
    """The part of the cores' time in which they had nothing to do, of two `psutil.cpu_times()`."""
    spent = [end - start for start, end in zip(before, after, strict=True)]
    return float((after.idle - before.idle) / sum(spent))


def _counts(record: Record, kind: Kind) -> bool:
    return record.kind == kind.name and record.outcome == "ok"


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
