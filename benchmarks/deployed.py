"""Both stages: the presets on every engine of the demo bundle, and the deployed engines through Triton."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import ours
from id3pm.errors import Id3pmError
from id3pm.sampling.presets import PRESETS
from served import Served
from workers import Worker, interleaved, median_and_spread

IMAGES, STEPS = 8, 5  # of a turn through Triton and beside it
TOGETHER: Mapping[str, int] = {"paper": 1, "balanced": 2, "fast": 4}
"""Images of a preset that are made together: `paper` takes half a minute for one."""
LONG = 100
"""Presets of more steps are timed over `PART` of them: one step takes what another takes."""
PART = 25
TURNS = 2


def measure(repository: Path, engines: Mapping[str, Path], console: Console) -> dict[str, Any]:
    """Presets by engine, and images through Triton beside the same engines in process.

    Args:
        repository: The deployed engines.
        engines: Repositories of the demo bundle's engines by name; one that has not been built is passed over.
        console: Is told what is going on.
    """
    console.print("both stages: presets ...")
    built = {name: path for name, path in engines.items() if (path / "super_resolution/1/engine").exists()}
    presets = [presets_of(name, path) for name, path in built.items()]
    console.print("both stages: through Triton ...")
    return {"presets": presets, "triton": through_triton(repository)}


def presets_of(name: str, repository: Path) -> dict[str, Any]:
    """Seconds per image of every preset with one engine, both stages, in process."""
    worker = Worker(ours.Cascade, {"repository": str(repository), "images": IMAGES, "steps": STEPS})
    try:
        worker.result()
        seconds = {preset: _seconds(worker, preset) for preset in reversed(PRESETS)}
        return {"engine": name, "seconds_per_image": seconds, "peak_rss_gib": worker.peak_rss() / 2**30}
    except RuntimeError as error:
        return {"engine": name, "failed": str(error)}
    finally:
        worker.close()


def _seconds(worker: Worker, preset: str) -> float:
    steps = PRESETS[preset].base.steps
    given: dict[str, Any] = {"name": preset, "images": TOGETHER[preset]}
    if steps <= LONG:
        worker.turn("preset", **given)  # warms up
        return statistics.median(worker.turn("preset", **given) for _ in range(TURNS))
    return float(worker.turn("preset", **given, steps=PART)) * steps / PART


def through_triton(repository: Path) -> dict[str, Any]:
    """The deployed engines in this machine's Triton, taking turns with the same engines in process."""
    worker = Worker(ours.Cascade, {"repository": str(repository), "images": IMAGES, "steps": STEPS})
    served = None
    try:
        worker.result()
        served = Served(repository, IMAGES, STEPS)
        both: Any = {"in process": worker, f"through Triton, {IMAGES} requests at once": served}
        turns, failed = interleaved(both, seconds=40.0, least=3, most=5)
        rows = []
        for name, timings in turns.items():
            seconds, spread = median_and_spread([turn.seconds for turn in timings])
            memory = both[name].peak_rss() / 2**30
            rows.append({"name": name, "seconds": seconds, "spread": spread, "memory_gib": memory})
        return {"images": IMAGES, "steps": STEPS, "rows": rows, "left_out": failed}
    except (OSError, RuntimeError, Id3pmError) as error:
        return {"images": IMAGES, "steps": STEPS, "rows": [], "left_out": {"through Triton": str(error)}}
    finally:
        worker.close()
        if served is not None:
            served.close()
