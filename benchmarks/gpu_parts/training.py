"""Training of the paper's networks, by the settings of a run that decide how a step is computed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpu_parts.report import Report
from id3pm.config import UNetConfig
from networks import TINY_16, TINY_SR, unet_flops

if TYPE_CHECKING:
    from id3pm.training.batch import Batches
    from id3pm.training.loop import Trainer
    from id3pm.training.presets import TrainConfig


@dataclasses.dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        name: For the table.
        settings: Of the run, `TrainConfig`; its other fields are the preset's.
        compiled: Whether through `torch.compile`, as `id3pm train --compile`.
        data_threads: See `SessionOptions`.
        stages: Of the networks that are measured so.
    """

    name: str
    settings: dict[str, Any]
    compiled: bool = False
    data_threads: int = 2
    stages: tuple[str, ...] = ("base", "sr")


_BF16 = {"precision": "bf16"}
WAYS = (
    Way("bf16", _BF16),
    Way("fp16, the preset", {"precision": "fp16"}),
    Way("bf16, --no-channels-last", {**_BF16, "channels_last": False}),
    Way("bf16, --no-fused-adamw", {**_BF16, "fused_adamw": False}, stages=("base",)),
    Way("bf16, --no-foreach-ema", {**_BF16, "foreach_ema": False}, stages=("base",)),
    Way("bf16, --data-threads 0", _BF16, data_threads=0, stages=("sr",)),
    Way("bf16, --gradient-checkpointing", {**_BF16, "gradient_checkpointing": True}),
    Way("bf16, --accumulation 2", {**_BF16, "accumulation": 2}),
    Way("fp32", {"precision": "no"}),
    Way("bf16, --compile", _BF16, compiled=True),
)
"""The most valuable first: the part may run out of time. Networks of one size have the same AdamW and average."""
COMPILING_S = 40.0
"""Seconds that must be left to begin to compile."""


def training(report: Report) -> None:
    """A training step of the paper's networks: images per second, memory, share of the peak, hours of the run."""
    from id3pm.training.presets import PAPER_BASE, PAPER_SR

    add = report.table()
    peaks = {"no": report.peak_flop_s(torch.float32)}
    peaks |= dict.fromkeys(("bf16", "fp16"), peaks["no"] if report.small else report.peak_flop_s(torch.bfloat16))
    for way, preset in itertools.product(WAYS, (PAPER_BASE, PAPER_SR)):
        if preset.stage not in way.stages:
            continue
        config = _config(report, way, preset)
        line = {"network": f"paper {preset.stage}", "way": way.name, "precision": config.precision}
        line |= {"batch": config.batch_size}
        if way.compiled and not report.small and report.left_s < COMPILING_S:
            add(**line, result="no time left")
            continue
        try:
            seconds, batch_seconds, memory = _measured(report, config, way)
        except RuntimeError as error:  # no memory, no compiler: the other ways are measured all the same
            add(**line, result=f"{type(error).__name__}: {str(error)[:200]}")
            continue
        flops = 3 * unet_flops(config.unet) * config.batch_size  # backward takes twice what forward does
        images = preset.total_steps * preset.batch_size
        add(
            **line,
            images_per_s=config.batch_size / seconds,
            tflop_s=flops / seconds / 1e12,
            share_of_peak=flops / seconds / peaks[config.precision],
            memory_gib=memory,
            hours_of_the_papers_run=images * seconds / config.batch_size / 3600,
            batch_of_data_ms=1e3 * batch_seconds,
            result="ok",
        )


def _config(report: Report, way: Way, preset: TrainConfig) -> TrainConfig:
    """The preset as it is measured; for a test with a small network, in bf16 where a CPU has no scaler of gradients."""
    batch, unet, settings = 64 if preset.stage == "base" else 8, preset.unet, dict(way.settings)
    if report.small:
        batch, unet = 2, TINY_16 if preset.stage == "base" else TINY_SR.at_size(32)
        settings["precision"] = "bf16" if settings["precision"] == "fp16" else settings["precision"]
    return dataclasses.replace(preset, batch_size=batch, unet=unet, train_size=unet.image_size, **settings)


def _measured(report: Report, config: TrainConfig, way: Way) -> tuple[float, float, float]:
    """Seconds of an optimiser step, and of making its data on one core; the most memory of the device in GiB."""
    with trainer_of(report, config, way) as (trainer, batches):
        trainer.train_step()
        if not report.small:
            torch.cuda.reset_peak_memory_stats()
        seconds = report.seconds(trainer.train_step, most_s=4.0)
        memory = 0.0 if report.small else torch.cuda.max_memory_allocated() / 2**30
    steps = itertools.count()
    return seconds, report.seconds(lambda: batches.at(next(steps)), most_s=0.5), memory


@contextlib.contextmanager
def trainer_of(report: Report, config: TrainConfig, way: Way) -> Iterator[tuple[Trainer, Batches]]:
    """A run on noise, as `id3pm train` sets it up, and where its batches come from; frees the device at the end."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from id3pm.training.ahead import BatchesBeside
    from id3pm.training.batch import shares_of
    from id3pm.training.data import make_batches
    from id3pm.training.loop import Trainer

    AcceleratorState._reset_state(reset_partial_state=True)  # precision and compiler are the process's otherwise
    backend = ("eager" if report.small else "inductor") if way.compiled else None
    accelerator = Accelerator(cpu=report.small, mixed_precision=config.precision, dynamo_backend=backend)
    batches = make_batches(config, random_faces(config.unet, 2 * config.batch_size))
    with contextlib.ExitStack() as stack:
        ahead: Any = batches
        if way.data_threads:
            how: dict[str, Any] = {"shares": shares_of(config, accelerator), "device": accelerator.device}
            ahead = BatchesBeside(batches, config.total_steps, way.data_threads, **how)
            stack.enter_context(contextlib.closing(ahead))
        stack.callback(report.free)
        yield Trainer(config, ahead, report.file.parent, {}, accelerator), batches


def random_faces(config: UNetConfig, count: int) -> dict[str, np.ndarray]:
    """A training split of noise."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, config.identity_dim or 4)).astype(np.float32)
    return {
        "images": rng.integers(0, 256, (count, config.image_size, config.image_size, 3), np.uint8),
        "vectors": vectors,
        "flipped_vectors": vectors,
        "detections": np.zeros((count, 15), np.float32),
    }
