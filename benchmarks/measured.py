"""Interleaved timings of contenders, and the rows of the tables."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contest import Timing
from peak import Peak
from workers import Worker, interleaved, median_and_spread

PEAK = "peak"


class Entry(NamedTuple):
    """A contender that has not been started.

    Attributes:
        name: As the tables call it.
        factory: Its class, which a worker process calls.
        arguments: Of the class.
        precision: Of its matrix products.
        flops: Operations of one evaluation of one row by its network as PyTorch has it.
        is_ours: One of our engines.
    """

    name: str
    factory: Callable[..., Any]
    arguments: dict[str, Any]
    precision: str
    flops: int
    is_ours: bool = False


@dataclasses.dataclass(eq=False)
class Measured:
    """What groups of contenders have given, by name; the first of each group is the reference of all.

    Attributes:
        turns: Of every round.
        speeds: Time of the reference over that of the contender, round by round.
        peak_rss: Bytes.
        psnr: Of our images to the reference's for the same noise, in dB.
        peaks: Operations per second of a matrix product, by precision.
        failed: Why a contender has no result.
    """

    turns: dict[str, list[Timing]] = dataclasses.field(default_factory=dict)
    speeds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    peak_rss: dict[str, int] = dataclasses.field(default_factory=dict)
    psnr: dict[str, float] = dataclasses.field(default_factory=dict)
    peaks: dict[str, float] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, group: Sequence[Entry], seconds: float, rounds: tuple[int, int]) -> None:
        """Starts a group, lets it take turns and ends it.

        Args:
            group: The reference first.
            seconds: For all rounds.
            rounds: Fewest and most.

        Raises:
            RuntimeError: The reference failed.
        """
        workers = {PEAK: Worker(Peak, {})}
        workers |= {entry.name: Worker(entry.factory, entry.arguments) for entry in group}
        try:
            for name, worker in list(workers.items()):
                self._unless_failed(name, worker.result)
            alive = {name: worker for name, worker in workers.items() if name not in self.failed}
            turns, failed = interleaved(alive, seconds, *rounds)
            self.failed |= failed
            if group[0].name in self.failed:
                raise RuntimeError(f"{group[0].name}: {self.failed[group[0].name]}")
            self._keep(group, turns, workers)
        finally:
            for worker in workers.values():
                worker.close()

    def _keep(self, group: Sequence[Entry], turns: Mapping[str, list[Any]], workers: Mapping[str, Worker]) -> None:
        for measured in turns.get(PEAK, ()):
            for precision, speed in measured.items():
                self.peaks[precision] = max(speed, self.peaks.get(precision, 0.0))
        reference = group[0].name
        images = workers[reference].turn("images") if any(entry.is_ours for entry in group) else None
        for entry in group:
            if entry.name not in turns:
                continue
            if (
                entry.is_ours
                and (found := self._unless_failed(entry.name, workers[entry.name].turn, "images")) is not None
            ):
                self.psnr[entry.name] = psnr(found, images)
            mine, others = turns[entry.name], turns[reference]
            self.turns.setdefault(entry.name, []).extend(mine)
            ratios = [other.seconds / own.seconds for own, other in zip(mine, others, strict=True)]
            self.speeds.setdefault(entry.name, []).extend(ratios)
            memory = self._unless_failed(entry.name, workers[entry.name].peak_rss) or 0
            self.peak_rss[entry.name] = max(memory, self.peak_rss.get(entry.name, 0))

    def _unless_failed(self, name: str, ask: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except RuntimeError as error:
            self.failed[name] = str(error)
            return None

    def rows(self, entries: Sequence[Entry], images: int, steps: int) -> list[dict[str, Any]]:
        """One per contender that has not failed: all columns of the table."""
        return [self._row(entry, images, steps) for entry in entries if entry.name not in self.failed]

    def _row(self, entry: Entry, images: int, steps: int) -> dict[str, Any]:
        turns, speeds = self.turns[entry.name], self.speeds[entry.name]
        seconds, spread = median_and_spread([turn.seconds for turn in turns])
        outside = statistics.median(turn.seconds - turn.unet_seconds for turn in turns)
        flops = entry.flops * 2 * images * steps / seconds
        row = {
            "name": entry.name,
            "precision": entry.precision,
            "ours": entry.is_ours,
            "rounds": len(turns),
            "ms_per_step": 1e3 * seconds / steps,
            "spread": spread,
            "speed": statistics.median(speeds),
            "speed_range": [min(speeds), max(speeds)],
            "images_per_s_250_steps": images * steps / seconds / 250,
            "gflops": flops / 1e9,
            "outside_unet_ms_per_step": 1e3 * outside / steps,
            "outside_unet": outside / seconds,
            "peak_rss_gib": self.peak_rss[entry.name] / 2**30,
        }
        if entry.precision in self.peaks:
            row["of_peak"] = flops / self.peaks[entry.precision]
        if entry.name in self.psnr:
            row["psnr_db"] = self.psnr[entry.name]
        return row


def psnr(actual: Any, expected: Any) -> float:
    """Of images in [-1, 1], in dB, at most 200."""
    squared = float(np.mean((np.clip(actual, -1, 1).astype(np.float64) - np.clip(expected, -1, 1)) ** 2))
    return 200.0 if squared == 0 else min(200.0, 10 * math.log10(4 / squared))
