"""A student beside its teacher: time of an image at equal threads, in turns, both stages, in process.

    python benchmarks/students.py TEACHER_REPOSITORY STUDENT_REPOSITORY

The processor time does not depend on what else the machine does; seconds and images a second do.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@dataclasses.dataclass
class Way:
    """One way to make images, and what its rounds took.

    Attributes:
        name: For the table.
        pipeline: The engines.
        options: As of `Pipeline.generate`.
        seconds: Of each round.
        processor: Processor seconds of each round, all threads together.
    """

    name: str
    pipeline: Pipeline
    options: Mapping[str, Any]
    seconds: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)

    def round(self, vectors: Any) -> None:
        """Makes one image of each vector."""
        start, spent = time.perf_counter(), time.process_time()
        self.pipeline.generate(vectors, range(len(vectors)), **self.options)
        self.seconds.append(time.perf_counter() - start)
        self.processor.append(time.process_time() - spent)

    def result(self, images: int) -> dict[str, Any]:
        """The best round by seconds, and the median processor time."""
        return {
            "name": self.name,
            "images_per_s": images / min(self.seconds),
            "processor_s_per_image": float(np.median(self.processor)) / images,
        }


def ways(teacher: Pipeline, student: Pipeline, names: tuple[str, ...]) -> list[Way]:
    """The teacher at some presets and its defaults, and the student with each number of steps that it was taught."""
    taught = student.base_manifest.diffusion.student_timesteps or ()
    steps = range(len(taught), 0, -1)
    presets = [Way(f"teacher, {name}", teacher, {"preset": name}) for name in names]
    return [
        *presets,
        Way("teacher, its defaults", teacher, {}),
        *(Way(f"student, {count} steps", student, {"steps": count}) for count in steps),
    ]


@click.command()
@click.argument("teacher", type=FOLDER)
@click.argument("student", type=FOLDER)
@click.option("--preset", "names", type=click.Choice(list(PRESETS)), multiple=True, default=("fast",))
@click.option("--images", type=click.IntRange(1), default=8, help="Made together, in each round.")
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--threads", type=click.IntRange(1), default=2, help="Of each engine.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file of the results.")
def main(
    teacher: Path, student: Path, names: tuple[str, ...], images: int, rounds: int, threads: int, out: Path | None
) -> None:
    """TEACHER and STUDENT are model repositories (id3pm build)."""
    with (
        Pipeline.load(teacher, threads=threads) as first,
        Pipeline.load(student, threads=threads) as second,
    ):
        vectors = np.random.default_rng(0).standard_normal((images, first.base_manifest.unet.identity_dim or 1))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        measured = ways(first, second, names)
        for way in measured:
            way.round(vectors[:1])
            way.seconds.clear()
            way.processor.clear()
        for _ in range(rounds):
            for way in measured:
                way.round(vectors)
        results = [way.result(images) for way in measured]
    for result in results:
        click.echo(
            f"{result['name']:24} {result['images_per_s']:7.2f} images/s, "
            f"{1e3 * result['processor_s_per_image']:7.1f} ms of processor time an image"
        )
    if out is not None:
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
