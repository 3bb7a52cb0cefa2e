"""Soak test: mixed load with cancels and bad requests, and whether memory grows."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy import stats

from load import memory
from load.running import Traffic, say
from load.summary import summarise
from report import table

BLOCKS = 10
"""Neighbouring samples are alike, so the line goes through means of blocks: their scatter is an honest uncertainty."""
CANCELLED, KNOWN = 0.1, 0.2
SETTLE_S = 10.0
WARM_UP = 32
"""Requests at once: as many as both stages take at a time, and more."""
SERIES = {"anonymous_mb": "anonymous", "shm_mb": "/dev/shm", "rss_mb": "resident (RSS)"}
JUDGED = ("anonymous_mb", "shm_mb")
"""Where a leak shows, whatever else this machine runs; see `memory`."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A straight line through the later part of a series.

    Attributes:
        slope_mb_per_h: Growth.
        plus_minus: Half of its 95 % confidence interval.
        from_s: Where the part begins.
        middle_s: Its middle.
        at_middle_mb: The line there.
    """

    slope_mb_per_h: float
    plus_minus: float
    from_s: float
    middle_s: float
    at_middle_mb: float

    def verdict(self, limit_mb_per_h: float) -> str:
        """`flat` or `growing`, when the whole interval lies on one side of the limit; else `undecided`."""
        if self.slope_mb_per_h + self.plus_minus <= limit_mb_per_h:
            return "flat"
        return "growing" if self.slope_mb_per_h - self.plus_minus > limit_mb_per_h else "undecided"


def fit_second_half(at_s: Sequence[float], values_mb: Sequence[float]) -> Fit:
    """The line through the second half of a series.

    Raises:
        ValueError: It has too few samples.
    """
    times, values = np.asarray(at_s, dtype=float), np.asarray(values_mb, dtype=float)
    late = times >= (times[0] + times[-1]) / 2 if len(times) else np.zeros(0, bool)
    times, values = times[late], values[late]
    if len(times) < 2 * BLOCKS:
        raise ValueError(f"{len(times)} samples in the second half: at least {2 * BLOCKS} are needed for a line")
    blocks = [(t.mean(), v.mean()) for t, v in zip(*(np.array_split(x, BLOCKS) for x in (times, values)), strict=True)]
    means = np.array(blocks)
    line = stats.linregress(means[:, 0], means[:, 1])
    wide = float(stats.t.ppf(0.975, BLOCKS - 2)) * line.stderr
    middle = float(means[:, 0].mean())
    return Fit(
        slope_mb_per_h=float(line.slope) * 3600,
        plus_minus=float(wide) * 3600,
        from_s=float(times[0]),
        middle_s=middle,
        at_middle_mb=float(line.slope * middle + line.intercept),
    )


class Soaked(Protocol):
    """A server, such as `ServiceProcess`, with its gateway, or `TritonServer`, without."""

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC."""

    @property
    def pid(self) -> int:
        """The ancestor of all its processes, whose memory is recorded."""

    def ping(self, model: str) -> dict[str, Any]:
        """What a stage says of itself."""


class Sampler:
    """Notes the memory of a server's processes at equal times, in a thread of its own, as a context manager."""

    def __init__(self, pid: int, every_s: float) -> None:
        self._pid = pid
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[dict[str, Any]] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        start = due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            due = max(due + self._every_s, time.monotonic())
            found = [one for process in memory.family(self._pid) if (one := memory.of_process(process)) is not None]
            now = memory.together(found)
            self.samples.append(
                {
                    "at_s": time.monotonic() - start,
                    "anonymous_mb": now.anonymous / memory.MB,
                    "rss_mb": now.rss / memory.MB,
                    "shm_mb": now.shm / memory.MB,
                    "parts_mb": {one.label: one.anonymous / memory.MB for one in found},
                }
            )


def soak(
    server: Soaked, traffic: Traffic, *, rate: float, seconds: float, seed: int, limit_mb_per_h: float
) -> dict[str, Any]:
    """Loads a server and watches it, JSON-ready.

    Args:
        server: Running.
        traffic: What is sent; some of it may be such that the server must refuse it.
        rate: Requests a second.
        seconds: How long.
        seed: Of the arrivals.
        limit_mb_per_h: Growth that is too much.
    """
    count = max(int(rate * seconds), 1)
    arrivals = traffic.arrivals(rate, count, seed=seed, known=KNOWN, cancelled=CANCELLED, patience_s=2.0)
    # Runtimes keep the memory of the largest batch they have seen: without this it would seem to grow for long.
    say(f"warming up: {WARM_UP} requests at once")
    traffic.send(server.grpc_url, traffic.burst(WARM_UP, seed))
    say(f"{len(arrivals)} requests, {rate:.3g} a second")
    with Sampler(server.pid, every_s=max(seconds / 600, 0.25)) as sampler:
        records = traffic.send(server.grpc_url, arrivals)
    series = {name: [sample[name] for sample in sampler.samples] for name in SERIES}
    at_s = [sample["at_s"] for sample in sampler.samples]
    fits = {name: fit_second_half(at_s, values) for name, values in series.items()}
    summary = summarise(records)
    summary["errors"] = sorted({record.error for record in records if not record.expected})[:10]
    return {
        "rate": rate,
        "limit_mb_per_h": limit_mb_per_h,
        "summary": summary,
        "samples": sampler.samples,
        "fits": {name: dataclasses.asdict(fit) for name, fit in fits.items()},
        "verdict": worst([fits[name].verdict(limit_mb_per_h) for name in JUDGED]),
        "left_in_flight": _left_in_flight(server),
    }


def _left_in_flight(server: Soaked) -> int:
    """Requests of which a stage still knows; one that was answered, or cancelled, a moment ago is given time to end."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        left = sum(server.ping(stage)["in_flight"] for stage in ("denoiser_64", "super_resolution"))
        if not left or time.monotonic() > deadline:
            return int(left)
        time.sleep(0.1)


def worst(verdicts: Sequence[str]) -> str:
    """The one that counts of several."""
    return max(verdicts, key=("flat", "undecided", "growing").index)


def passed(results: Mapping[str, Any]) -> bool:
    """Whether memory is flat and every request ended as it should."""
    everything = results["summary"]["kinds"]["all"]
    clean = not (everything["wrong"] or everything["unexpected"] or results["left_in_flight"])
    return clean and results["verdict"] == "flat"


def markdown(results: Mapping[str, Any]) -> list[str]:
    """Memory, verdict."""
    lines = [f"{results['summary']['seconds'] / 60:.1f} minutes, {results['rate']:.3g} requests a second.", ""]
    rows = [
        [title, f"{fit['at_middle_mb']:.0f}", f"{fit['slope_mb_per_h']:+.1f} ± {fit['plus_minus']:.1f}"]
        for title, fit in ((title, results["fits"][name]) for name, title in SERIES.items())
    ]
    lines += table(["memory of all server processes", "MB", "growth in the second half, MB/h"], rows)
    everything = results["summary"]["kinds"]["all"]
    lines += [
        "",
        f"Anonymous memory and /dev/shm against a limit of {results['limit_mb_per_h']:g} MB/h: {results['verdict']}. "
        f"Requests that did not end as they should: {everything['unexpected']}; wrong images: {everything['wrong']}; "
        f"left in flight: {results['left_in_flight']}.",
    ]
    return lines
