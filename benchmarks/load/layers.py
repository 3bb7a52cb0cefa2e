"""What each layer of serving costs: batches, scheduler, Triton, ensemble and gateway, one upon the other, in turns."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ours
from contest import Turn
from report import table
from served import Served
from workers import Rounds, Worker, interleaved

PLAIN, SCHEDULED = "plain batches", "step scheduler"
STAGEWISE, ENSEMBLE, GATEWAY = "Triton, one stage after the other", "Triton's ensemble", "gateway"
IN_PROCESS = {PLAIN: ours.PlainBatches, SCHEDULED: ours.Cascade}
PROGRAMS = {"id3pm": "`id3pm serve`"}


def measure(
    repository: Path, out: Path, *, images: int, steps: int, sr_steps: int | None, rounds: int
) -> dict[str, Any]:
    """Some images at once by each way, in alternating rounds. Each way has a process or a server of its own.

    Args:
        repository: Models and built engines.
        out: Where the gateway's log goes.
        images: How many at once.
        steps: Of both stages.
        sr_steps: Of super-resolution, where that has another number.
        rounds: Turns of each.

    Returns:
        JSON-ready; lists have one number per round.

    Raises:
        RuntimeError: A way failed, or they did not all make the same images.
    """
    given = {"repository": str(repository), "images": images, "steps": steps, "sr_steps": sr_steps}
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        ways: dict[str, Any] = {}
        for name, contender in IN_PROCESS.items():
            ways[name] = worker = Worker(contender, given)
            stack.callback(worker.close)
            worker.result()
        log = out / "overhead.log"
        for name, arguments in ((STAGEWISE, (None, True)), (ENSEMBLE, (None, False)), (GATEWAY, (log, False))):
            log_of_it, stagewise = arguments
            ways[name] = Served(repository, images, steps, log_of_it, sr_steps, stagewise)
            stack.callback(ways[name].close)
        found = interleaved(ways, seconds=0.0, least=rounds, most=rounds)
    return {
        "images": images,
        "steps": steps,
        "sr_steps": sr_steps or steps,
        "load_average_before": load,
        "ways": results(found, images),
    }


def results(found: Rounds, images: int) -> dict[str, Any]:
    """The turns of each way, by its name: seconds, and milliseconds of processor time for each image.

    Raises:
        RuntimeError: A way failed, or they did not all make the same images.
    """
    if found.failed:
        raise RuntimeError(f"not measured: {found.failed}")
    digests = {name: {turn.digest for turn in turns} for name, turns in found.turns.items()}
    if len(set().union(*digests.values())) != 1:
        raise RuntimeError(f"the ways did not make the same images: {digests}")
    return {name: _way(turns, 1e3 / images) for name, turns in found.turns.items()}


def _way(turns: Sequence[Turn], ms_per_image: float) -> dict[str, Any]:
    parts = {name: [turn.processor_s[name] * ms_per_image for turn in turns] for name in turns[0].processor_s}
    return {
        "seconds": [turn.seconds for turn in turns],
        "processor_ms": [sum(turn.processor_s.values()) * ms_per_image for turn in turns],
        "client_ms": [turn.client_s * ms_per_image for turn in turns],
        "parts_ms": {name: statistics.median(each) for name, each in sorted(parts.items())},
    }


def share(measured: Mapping[str, Any], way: str) -> float:
    """The rate of a way, to that of the step scheduler in process."""
    seconds = {name: statistics.median(each["seconds"]) for name, each in measured["ways"].items()}
    return seconds[SCHEDULED] / seconds[way]


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """A line for each way: medians and ranges of all rounds, and what it adds to the way above it."""
    images, rows, before = measured["images"], [], None
    for name, way in measured["ways"].items():
        rates = [images / seconds for seconds in way["seconds"]]
        added = [] if before is None else [a - b for a, b in zip(way["processor_ms"], before, strict=True)]
        parts = [f"{PROGRAMS.get(part, part)} {ms:.1f}" for part, ms in way["parts_ms"].items() if ms >= 0.05]
        rows.append(
            [
                name,
                _range(rates),
                _range(way["processor_ms"]),
                _range(added),
                ", ".join(parts) if len(way["parts_ms"]) > 1 else "",
                _range(way["client_ms"]) if any(way["client_ms"]) else "",
            ]
        )
        before = way["processor_ms"]
    header = ["way", "images/s", "processor ms of an image", "added", "of which", "client, ms"]
    return table(header, rows)


def _range(values: Sequence[float]) -> str:
    """Median and range."""
    if not values:
        return ""
    digits = 1 if max(map(abs, values)) < 100 else 0
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"
