"""What a data set costs beside the pipeline alone: the same images, made by both in turns in one process.

    python benchmarks/dataset.py --repository triton_repo --preset balanced --out out/dataset

In each round the pipeline makes the images of a shard, then `id3pm dataset run` makes the shard without filters, then
with them. Wall time is what a user waits for; processor time says the same on a machine that others use, too. The last
line is the cost of the parts: detector and FR model, second FR model, PNG.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
import numpy as np

from id3pm.pipeline import Pipeline
from id3pm.synthetic.draws import Draw
from id3pm.synthetic.generators import LocalGenerator
from id3pm.synthetic.identities import choose
from id3pm.synthetic.judging import ImageJudges
from id3pm.synthetic.maker import ShardMaker, open_plan
from id3pm.synthetic.planning import Planner, Rules
from id3pm.synthetic.shard import job_of
from id3pm.synthetic.shard_files import encode_picture
from id3pm.synthetic.store import LocalStore
from id3pm.synthetic.variations import Variations

OFF = Rules(least_similarity=None, most_other=None, least_second=None, attempts=1)
# Every image passes, so that all rounds make the same images.
ON = Rules(least_similarity=-1.0, most_other=1.0, second="dlib", least_second=-1.0, attempts=1)


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of the wall clock and of this process's processors."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Time:
    """How long it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Time(time.perf_counter() - wall, time.process_time() - cpu)


class Contest:
    """The same images by the pipeline alone, and as a shard without and with filters."""

    def __init__(self, pipeline: Pipeline, repository: Path, identities: int, images: int, preset: str) -> None:
        self._pipeline, self._repository = pipeline, repository
        planner = Planner(repository)
        chosen = choose("sphere", identities, 0.0, 0, planner.space)
        given = {"preset": preset}
        varied = Variations(images=images, guidance_scale=Draw(values=(planner.guidance(given),)))
        self._folder = Path(tempfile.mkdtemp(prefix="id3pm-dataset-"))
        self.count = identities * images
        for name, rules in (("off", OFF), ("on", ON)):
            filters, options = planner.filters(rules), planner.options(given)
            _, data = planner.write(
                chosen, varied, filters, options, seed=0, source="sphere", shard_size=self.count, image_format="png"
            )
            (self._folder / name).write_bytes(data)
        self._plans = {name: open_plan(str(self._folder / name)) for name in ("off", "on")}
        self._juries = {
            name: ImageJudges.load(plan.header, repository, plan.targets() if name == "on" else None)
            for name, plan in self._plans.items()
        }

    def alone(self) -> None:
        """The pipeline, all images at once."""
        plan = self._plans["off"]
        jobs = [job_of(plan.header, row) for row in plan.shard(0)]
        assert len(list(self._pipeline.generate_each(jobs))) == self.count

    def shard(self, name: str) -> None:
        """The same as a shard, written to a new folder."""
        plan, judges = self._plans[name], self._juries[name]
        with tempfile.TemporaryDirectory(prefix="id3pm-dataset-") as out:
            made = ShardMaker(plan, LocalStore(Path(out)), LocalGenerator(self._pipeline), judges).make(0)
        assert made.kept + made.missing == self.count

    def parts(self) -> dict[str, float]:
        """Milliseconds of a processor for each image: judging without and with the second model, PNG."""
        plan = self._plans["on"]
        rows = plan.shard(0)[:8]
        identities, vectors = [row.identity for row in rows], np.stack([row.vector for row in rows])
        made = self._pipeline.generate(vectors, [row.seed for row in rows], preset="fast")

        def judging(second: Literal["dlib"] | None) -> float:
            filters = dataclasses.replace(plan.header.filters, second=second, least_second=None, models={})
            judges = ImageJudges.load(
                dataclasses.replace(plan.header, filters=filters), self._repository, plan.targets()
            )
            return _median_ms(lambda: judges.judge(made.images, identities, vectors), len(rows))

        def encoding() -> None:
            for image, receipt in zip(made.images, made.receipts, strict=True):
                encode_picture(image, "png", receipt)

        return {
            "detector and FR model": judging(None),
            "with dlib": judging("dlib"),
            "PNG": _median_ms(encoding, len(rows)),
        }


def _seconds(found: list[float], images: int) -> float:
    """For each image: the median."""
    return statistics.median(found) / images


def _speed(alone: list[Time], found: list[Time], clock: str) -> str:
    """Relative to the pipeline alone, round by round: median and range."""
    shares = sorted(getattr(a, clock) / getattr(b, clock) for a, b in zip(alone, found, strict=True))
    return f"{statistics.median(shares):.2f} ({shares[0]:.2f} .. {shares[-1]:.2f})"


def _median_ms(work: Callable[[], object], images: int) -> float:
    """Of a processor, for each image."""
    return statistics.median(timed(work).cpu for _ in range(5)) / images * 1e3


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=Path("triton_repo"))
@click.option("--preset", default="balanced")
@click.option("--identities", type=click.IntRange(2), default=4)
@click.option("--images", type=click.IntRange(1), default=8, help="Of each identity.")
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option("--threads", type=click.IntRange(1), default=None)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/dataset"))
def main(
    repository: Path, preset: str, identities: int, images: int, rounds: int, threads: int | None, out: Path
) -> None:
    """Prints medians and writes dataset.json."""
    with Pipeline.load(repository, threads=threads) as pipeline:
        contest = Contest(pipeline, repository, identities, images, preset)
        ways: dict[str, Callable[[], None]] = {
            "pipeline": contest.alone,
            "shard": lambda: contest.shard("off"),
            "shard, filters": lambda: contest.shard("on"),
        }
        times: dict[str, list[Time]] = {name: [] for name in ways}
        contest.alone()  # warm
        parts = contest.parts()
        for number in range(rounds):
            for name, work in ways.items():
                times[name].append(timed(work))
                click.echo(f"round {number + 1}, {name}: {times[name][-1]}", err=True)
    for name, found in times.items():
        wall, cpu = (_seconds([getattr(time, clock) for time in found], contest.count) for clock in ("wall", "cpu"))
        click.echo(
            f"{name:15} {1 / wall:6.3f} images/s, {cpu:6.3f} s of a processor for an image; speed in the same round: "
            f"by the clock {_speed(times['pipeline'], found, 'wall')}, by processor time "
            f"{_speed(times['pipeline'], found, 'cpu')}"
        )
    click.echo("ms of a processor for an image: " + ", ".join(f"{name} {value:.0f}" for name, value in parts.items()))
    out.mkdir(parents=True, exist_ok=True)
    raw = {name: [dataclasses.asdict(t) for t in found] for name, found in times.items()}
    report = {"count": contest.count, "preset": preset, "times": raw, "parts_ms": parts}
    (out / "dataset.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
