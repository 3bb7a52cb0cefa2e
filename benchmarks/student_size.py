"""Memory and time of `id3pm distill` for the paper's networks, estimated by `--estimate` and measured in some steps.

    python benchmarks/student_size.py --stage base --stage sr --threads 1 --out out/student_size

The weights are random, the images noise: what a step costs does not depend on them. Measured is the command itself, in
a process of its own: seconds of its optimiser steps by its own clock, and the most memory that it had.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from id3pm.config import PAPER_BASE_64, PAPER_SR_256, UNetConfig
from id3pm.formats import datasets as shards
from id3pm.training.distillation.loop import load
from networks import TINY_16, TINY_SR, write_random_bundle
from report import table

STEPS = {"base": 2, "sr": 1}  # of the student
BATCHES = {"base": 4, "sr": 1}  # smallest that the command takes
ROWS = 80  # of the data set: one in five is held out, and the teacher is asked for 32


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a bundle."""

    base: UNetConfig
    sr: UNetConfig


PAPER = Networks(PAPER_BASE_64, PAPER_SR_256)
SMALL = Networks(dataclasses.replace(TINY_16, image_size=64), TINY_SR)


def write_noise_data(folder: Path, networks: Networks) -> None:
    """A data set of noise: images of 64 px, of which super-resolution takes crops too, ID vectors of norm 1."""
    rng = np.random.default_rng(0)
    size, dim = networks.base.image_size, networks.base.identity_dim or 0
    vectors = rng.standard_normal((2, ROWS, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    shards.begin(folder, {"kind": "noise", "size": size, "id_vector_model": "none"})
    arrays = {
        "images": rng.integers(0, 256, (ROWS, size, size, 3), dtype=np.uint8),
        "vectors": vectors[0],
        "flipped_vectors": vectors[1],
        "detections": np.zeros((ROWS, 15), np.float32),
        "index": np.arange(ROWS, dtype=np.int64),
    }
    shards.write_shard(folder, 0, arrays)


def command_of(stage: str, out: Path, threads: int, steps: int) -> list[str]:
    """`id3pm distill` of one stage: as few pairs as there can be, each in one step of the teacher."""
    options: dict[str, Any] = {
        "teacher": out / "bundle",
        "stage": stage,
        "steps": STEPS[stage],
        "data": out / "data",
        "out": out / stage,
        "repository": out / "none",
        "pairs": 1,
        "teacher-steps": 1,
        "identity-loss": 0,
        "optimiser-steps": steps,
        "batch-size": BATCHES[stage],
        "threads": threads,
    }
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "id3pm", "distill", *given, "--gradient-checkpointing", "--cpu"]


def run(command: list[str], limit_s: float) -> tuple[str, int]:
    """Output of a command, and the most bytes it had in memory.

    Raises:
        RuntimeError: It failed.
    """
    watch = "import resource,subprocess,sys\nrc=subprocess.run(sys.argv[2:],timeout=float(sys.argv[1])).returncode\n"
    watch += "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)\nsys.exit(rc)"
    done = subprocess.run(
        [sys.executable, "-c", watch, str(limit_s), *command],
        capture_output=True,
        text=True,
        timeout=limit_s + 60,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr[-2000:]}")
    text, _, peak = done.stdout.rpartition("peak ")
    return text, int(peak)


def measured(stage: str, out: Path, threads: int, steps: int, limit_s: float) -> dict[str, Any]:
    """One stage: the lines of the estimate, seconds of a step for each image, memory."""
    command = command_of(stage, out, threads, steps)
    estimate = run([*command, "--estimate"], limit_s)[0]
    peak = run(command, limit_s)[1]
    state = load(out / stage)[0]
    found = re.search(r"training: ([\d.e+-]+) s", estimate)
    weights = re.search(r"memory: ([\d.]+) GB", estimate)
    assert found is not None and weights is not None, estimate
    return {
        "student": estimate.splitlines()[0].partition(": ")[2],
        "batch": BATCHES[stage],
        "weights_gb": float(weights[1]),
        "peak_gb": peak / 1e9,
        "estimated_s": float(found[1]) / BATCHES[stage],
        "measured_s": state["facts"]["training_seconds"] / state["step"] / BATCHES[stage],
    }


def markdown(results: dict[str, dict[str, Any]]) -> list[str]:
    """The table."""
    heads = ("stage", "student", "GB for weights, optimiser and teacher", "GB in all, measured")
    heads += ("seconds of a step for each image, estimated", "measured")
    return table(
        heads,
        [
            [
                stage,
                one["student"],
                f"{one['weights_gb']:.1f}",
                f"{one['peak_gb']:.1f} (batch {one['batch']})",
                f"{one['estimated_s']:.1f}",
                f"{one['measured_s']:.1f}",
            ]
            for stage, one in results.items()
        ],
    )


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--stage", "stages", type=click.Choice(list(STEPS)), multiple=True, default=tuple(STEPS))
@click.option("--optimiser-steps", "steps", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--limit-s", type=click.FloatRange(1), default=3600.0, show_default=True, help="Of each command.")
@click.option("--quick", is_flag=True, help="Small networks: the script itself, not a measurement.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/student_size"))
def main(stages: tuple[str, ...], steps: int, threads: int, limit_s: float, quick: bool, out: Path) -> None:
    """Measures, prints the table, and writes student_size.json."""
    torch.set_num_threads(threads)
    networks = SMALL if quick else PAPER
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "bundle" / "bundle.json").exists():
        write_random_bundle(out / "bundle", "random", networks.base, networks.sr)
        write_noise_data(out / "data", networks)
    results = {stage: measured(stage, out, threads, steps, limit_s) for stage in stages}
    (out / "student_size.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    click.echo("\n".join(markdown(results)))


if __name__ == "__main__":
    main()
