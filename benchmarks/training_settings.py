"""What each setting of `id3pm train` costs or saves on this CPU: steps of the demo networks, settings in turn.

And what the data of a step of the paper's networks take, which threads make beside a GPU.

    python benchmarks/training_settings.py --out out/training

Processor time, which other work on the machine changes little, and seconds by the clock. `gpu.py` measures the paper's
networks on a GPU in the same ways.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from gpu_parts.report import Report
from gpu_parts.training import Way, random_faces, trainer_of
from id3pm.training.data import make_batches
from id3pm.training.presets import PRESETS, TrainConfig

WAYS = (
    Way("the preset", {}, data_threads=0),
    Way("the preset, again", {}, data_threads=0),
    Way("--no-channels-last", {"channels_last": False}, data_threads=0),
    Way("--no-fused-adamw", {"fused_adamw": False}, data_threads=0),
    Way("--no-foreach-ema", {"foreach_ema": False}, data_threads=0),
    Way("--data-threads 1", {}, data_threads=1),
    Way("--gradient-checkpointing", {"gradient_checkpointing": True}, data_threads=0),
    Way("--accumulation 2", {"accumulation": 2}, data_threads=0),
    Way("--precision bf16", {"precision": "bf16"}, data_threads=0),
)
"""The preset first: the others are compared with it; twice, to show what the same work may differ by. Half precision
last: accelerate keeps one for the process, which runs in fp32 do not ask for."""


def settings_table(configs: Sequence[TrainConfig], rounds: int, folder: Path) -> list[dict[str, object]]:
    """Median step of every way and network, each way a step in turn."""
    lines: list[dict[str, object]] = []
    for config in configs:
        with contextlib.ExitStack() as stack:
            report = Report(folder / "none.json", "cpu", 0.0)
            trainers = []
            for way in WAYS:
                settings = dataclasses.replace(config, **way.settings)
                trainers.append(stack.enter_context(trainer_of(report, settings, way))[0])
            times: list[list[tuple[float, float]]] = [[] for _ in WAYS]
            for number in range(rounds + 1):
                for place in range(len(WAYS)):
                    way = (place + number) % len(WAYS)  # what ran just before is in the caches
                    start = time.process_time(), time.perf_counter()
                    trainers[way].train_step()
                    if number:  # the first one allocates
                        times[way].append((time.process_time() - start[0], time.perf_counter() - start[1]))
        usual = statistics.median(cpu for cpu, _ in times[0])
        for way, found in zip(WAYS, times, strict=True):
            cpu, clock = (statistics.median(values) for values in zip(*found, strict=True))
            line = {"network": f"demo {config.stage}", "batch": config.batch_size, "setting": way.name}
            lines.append({**line, "cpu_ms": 1e3 * cpu, "clock_ms": 1e3 * clock, "cpu_ratio": cpu / usual})
    return lines


def data_table(configs: Sequence[TrainConfig], rounds: int) -> list[dict[str, object]]:
    """Median processor time of one thread for the data of a step, from images in memory."""
    lines: list[dict[str, object]] = []
    for config in configs:
        batches = make_batches(config, random_faces(config.unet, 2 * config.batch_size))
        times = []
        for step in range(rounds + 1):
            start = time.thread_time()
            batches.at(step)
            times.append(time.thread_time() - start)
        line = {"network": f"paper {config.stage}", "batch": config.batch_size}
        lines.append({**line, "data_ms": 1e3 * statistics.median(times[1:])})
    return lines


def data_markdown(lines: Sequence[dict[str, object]]) -> str:
    """The lines of `data_table` in Markdown."""
    text = ["| network, batch | data of a step, ms of one core |", "|---|---|"]
    text += [f"| {line['network']}, {line['batch']} | {line['data_ms']:.1f} |" for line in lines]
    return "\n".join(text) + "\n"


def markdown(lines: Sequence[dict[str, object]]) -> str:
    """The lines of `settings_table` in Markdown."""
    text = [
        "| network, batch | setting | processor time, ms a step | by the clock, ms | of the preset's |",
        "|" + "---|" * 5,
    ]
    text += [
        f"| {line['network']}, {line['batch']} | {line['setting']} | {line['cpu_ms']:.0f} | {line['clock_ms']:.0f} | "
        f"{line['cpu_ratio']:.2f} |"
        for line in lines
    ]
    return "\n".join(text) + "\n"


@click.command()
@click.option(
    "--rounds", type=click.IntRange(1), default=9, show_default=True, help="Steps, of which the median counts."
)
@click.option("--threads", type=click.IntRange(1), default=None, help="Of PyTorch [its own choice].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the tables.")
def main(rounds: int, threads: int | None, out: Path) -> None:
    """Measure a training step of both demo networks in every setting."""
    if threads:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    configs = [dataclasses.replace(PRESETS["demo", stage], identity_loss=0.0) for stage in ("base", "sr")]
    data = data_table([PRESETS["paper", stage] for stage in ("base", "sr")], rounds)
    click.echo(data_markdown(data))
    lines = settings_table(configs, rounds, out)
    click.echo(markdown(lines))
    (out / "training_settings.json").write_text(json.dumps({"settings": lines, "data": data}, indent=1) + "\n")
    (out / "training_settings.md").write_text(data_markdown(data) + "\n" + markdown(lines))


if __name__ == "__main__":
    main()
