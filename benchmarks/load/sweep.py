"""perf_analyzer against the ensemble: a sweep of concurrencies, then Poisson rates."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load.arrivals import gaps_us
from load.perf_analyzer import PerfAnalyzer, read_csv, read_export, write_input
from load.running import say
from load.summary import PERCENTILES, seconds
from report import table

MODEL = "id3pm"
TIMEOUT_S = 3600.0


def inputs(identities: NDArray[np.float32], count: int, preset: str | None, first: int = 0) -> list[dict[str, Any]]:
    """`count` entries for perf_analyzer: ID vectors in turn, and the seeds from `first`, one each."""
    options = {} if preset is None else {"preset": [preset]}
    return [
        {"embedding": identities[i % len(identities)].tolist(), "seed": [i], **options}
        for i in range(first, first + count)
    ]


def measure(
    tool: PerfAnalyzer,
    url: str,
    identities: NDArray[np.float32],
    *,
    concurrencies: Sequence[int],
    loads: Sequence[float],
    requests: int,
    preset: str | None,
    seed: int,
) -> dict[str, Any]:
    """All runs, JSON-ready.

    Args:
        tool: The program.
        url: `host:port` of gRPC.
        identities: ID vectors.
        concurrencies: Requests that are kept on their way at a time.
        loads: Poisson rates as shares of the best throughput of the sweep.
        requests: Of each run, at least; a run at concurrency c has at least 2 c.
        preset: Sampling preset, or `None` for the bundle's options.
        seed: Of the Poisson times: perf_analyzer's own have a fixed seed and miss the rate.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "input.json"
        counts = {c: max(requests, 2 * c) for c in concurrencies}
        common = ["-m", MODEL, "-u", url, "-i", "grpc", "--input-data", str(data)]
        most = 2 * max(*counts.values(), requests)
        firsts = itertools.count(step=most)

        def new_input() -> None:
            # perf_analyzer counts its request ids from 0 in every run, and a request that comes again within a minute
            # gets its answer again. It sends a few more than it was asked for.
            write_input(data, inputs(identities, most, preset, next(firsts)))

        sweep = []
        for concurrency, count in counts.items():
            new_input()
            say(f"perf_analyzer: concurrency {concurrency}, {count} requests")
            given = ["--concurrency-range", str(concurrency), "--request-count", str(count)]
            sweep.append({"concurrency": concurrency, **_run(tool, folder, [*common, *given])})
        best = max(run["images_per_s"] for run in sweep)
        poisson = []
        for load in loads:
            say(f"perf_analyzer: Poisson at {load:.0%} of {best:.3g} images/s, {requests} requests")
            new_input()
            gaps = folder / "gaps_us.txt"
            gaps.write_text("\n".join(map(str, gaps_us(load * best, requests, seed))) + "\n")
            given = ["--async", "--max-threads", "64", "--request-intervals", str(gaps)]
            run = _run(tool, folder, [*common, *given, "--request-count", str(requests)])
            poisson.append({"load": load, "asked_per_s": load * best, **run})
    return {"model": MODEL, "preset": preset, "requests": requests, "sweep": sweep, "poisson": poisson}


def _run(tool: PerfAnalyzer, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    figures, export = folder / "figures.csv", folder / "export.json"
    for path in (figures, export):
        path.unlink(missing_ok=True)
    written = ["--percentile=95", "-f", str(figures), "--profile-export-file", str(export)]
    tool.run([*arguments, *written], TIMEOUT_S)
    own = read_csv(figures)
    return {**read_export(export), "perf_analyzer_images_per_s": own["Inferences/Second"]}


def markdown(results: dict[str, Any]) -> list[str]:
    """Both tables."""
    preset = results["preset"]
    options = "the bundle's own options" if preset is None else f"preset `{preset}`"
    lines = [f"Ensemble `{results['model']}`, {options}, gRPC, another seed for every request.", ""]
    latencies = [f"p{p}, s" for p in PERCENTILES]
    rows = [
        [str(run["concurrency"]), str(run["requests"]), f"{run['images_per_s']:.3g}", *_latencies(run)]
        for run in results["sweep"]
    ]
    lines += table(["concurrency", "requests", "images/s", *latencies], rows)
    if results["poisson"]:
        rows = [
            [
                f"{run['load']:.0%}",
                f"{run['asked_per_s']:.3g}",
                "" if run["sent_per_s"] is None else f"{run['sent_per_s']:.3g}",
                str(run["requests"]),
                *_latencies(run),
            ]
            for run in results["poisson"]
        ]
        lines += ["", *table(["load", "asked, 1/s", "sent, 1/s", "requests", *latencies], rows)]
    return lines


def _latencies(run: dict[str, Any]) -> list[str]:
    return [seconds(run[f"p{p}_s"]) for p in PERCENTILES]
