"""Charts of load tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from load.soak import SERIES  # noqa: E402

OURS, OTHER, GREY = "#4c78a8", "#f58518", "#808080"
SHADES: Mapping[int, str] = {50: "#9ecae9", 95: "#4c78a8", 99: "#1f3b57"}


def sweep(path: Path, results: Mapping[str, Any]) -> None:
    """Throughput and latency over concurrency, and latency over the Poisson rate."""
    panels = 2 + bool(results["poisson"])
    figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 3.8), layout="constrained")
    runs = results["sweep"]
    concurrencies = [run["concurrency"] for run in runs]
    axes[0].plot(concurrencies, [run["images_per_s"] for run in runs], "o-", color=OURS)
    _finish(axes[0], "throughput", "requests at once", "images per second")
    _latencies(axes[1], concurrencies, runs)
    _finish(axes[1], "latency, closed loop", "requests at once", "seconds")
    for axis in axes[:2]:
        axis.set_xscale("log", base=2)
        axis.set_xticks(concurrencies, [str(c) for c in concurrencies])
    if results["poisson"]:
        _latencies(axes[2], [100 * run["load"] for run in results["poisson"]], results["poisson"])
        _finish(axes[2], "latency, Poisson arrivals", "rate, % of the best throughput", "seconds")
    axes[1].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _latencies(axis: Any, places: Sequence[float], runs: Sequence[Mapping[str, Any]]) -> None:
    for percentile, colour in SHADES.items():
        axis.plot(places, [run[f"p{percentile}_s"] for run in runs], "o-", color=colour, label=f"p{percentile}")


def comparison(path: Path, results: Mapping[str, Any]) -> None:
    """For each class of requests, the share that was answered within a time, of both systems."""
    kinds = results["kinds"]
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.2 * len(kinds), 3.8), layout="constrained", squeeze=False)
    colours = dict(zip(results["systems"], (OURS, OTHER), strict=True))
    for axis, kind in zip(axes[0], kinds, strict=True):
        for name, system in results["systems"].items():
            latencies = np.sort(system["latencies_s"][kind])
            shares = np.arange(1, len(latencies) + 1) / max(len(latencies), 1)
            axis.step(latencies, 100 * shares, where="post", color=colours[name], label=name)
        axis.axhline(95, color=GREY, lw=0.8, ls=":")
        axis.set_xlim(left=0)
        _finish(axis, f"requests of {kind}", "seconds from when it was due", "% answered")
    axes[0][0].legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def memory(path: Path, results: Mapping[str, Any]) -> None:
    """Memory of the server over the minutes of a soak, and the line through its second half."""
    minutes = np.array([sample["at_s"] / 60 for sample in results["samples"]])
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, title), colour in zip(SERIES.items(), (OURS, OTHER, GREY), strict=True):
        axis.plot(minutes, [sample[name] for sample in results["samples"]], color=colour, lw=1.2, label=title)
    fit = results["fits"]["anonymous_mb"]
    late = minutes[minutes >= fit["from_s"] / 60]
    line = fit["at_middle_mb"] + fit["slope_mb_per_h"] * (late - fit["middle_s"] / 60) / 60
    axis.plot(
        late,
        line,
        color="#d62728",
        ls="--",
        lw=1.5,
        label=f"{fit['slope_mb_per_h']:+.1f} ± {fit['plus_minus']:.1f} MB/h",
    )
    axis.legend(fontsize=8, frameon=False)
    _finish(axis, "memory of all server processes", "minutes", "MB")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _finish(axis: Any, title: str, across: str, up: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(across, fontsize=9)
    axis.set_ylabel(up, fontsize=9)
    axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    axis.spines[["top", "right"]].set_visible(False)
