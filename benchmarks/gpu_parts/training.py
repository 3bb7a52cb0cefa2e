"""Training of the paper's networks, by the settings of a run that decide how a step is computed."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import numpy as np
import torch

from gpu_parts.report import Report
from id3pm.config import UNetConfig
from networks import TINY_16, TINY_SR, unet_flops


@dataclasses.dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        name: For the table.
        settings: Of the run, `TrainConfig`.
        compiled: Whether through `torch.compile`, as `id3pm train --compile`.
    """

    name: str
    settings: dict[str, Any]
    compiled: bool = False


WAYS = (
    Way("bf16", {"precision": "bf16"}),
    Way("fp16, the preset", {"precision": "fp16"}),
    Way("bf16, --gradient-checkpointing", {"precision": "bf16", "gradient_checkpointing": True}),
    Way("bf16, --accumulation 2", {"precision": "bf16", "accumulation": 2}),
    Way("bf16, --compile", {"precision": "bf16"}, compiled=True),
    Way("fp32", {"precision": "no"}),
)
"""The most valuable first: the part may run out of time."""


def training(report: Report) -> None:
    """A training step of the paper's networks: images per second, memory, share of the peak, hours of the run."""
    from id3pm.training.presets import PAPER_BASE, PAPER_SR

    add = report.table()
    peaks = {"no": report.peak_flop_s(torch.float32)}
    peaks |= dict.fromkeys(("bf16", "fp16"), peaks["no"] if report.small else report.peak_flop_s(torch.bfloat16))
    for way in WAYS:
        for preset in (PAPER_BASE, PAPER_SR):
            batch = 2 if report.small else (64 if preset.stage == "base" else 8)
            unet = preset.unet
            if report.small:
                unet = TINY_16 if preset.stage == "base" else TINY_SR.at_size(32)
            settings: dict[str, Any] = {**way.settings, "unet": unet, "train_size": unet.image_size}
            if report.small and settings["precision"] == "fp16":  # a CPU has no scaler of gradients
                settings["precision"] = "bf16"
            config = dataclasses.replace(preset, batch_size=batch, **settings)
            line = {"network": f"paper {preset.stage}", "way": way.name, "precision": config.precision, "batch": batch}
            try:
                seconds, memory = _step(report, config, compiled=way.compiled)
            except RuntimeError as error:  # no memory, no compiler: the other ways are measured all the same
                add(**line, result=f"{type(error).__name__}: {str(error)[:200]}")
                continue
            flops = 3 * unet_flops(unet) * batch  # backward takes twice what forward does
            add(
                **line,
                images_per_s=batch / seconds,
                tflop_s=flops / seconds / 1e12,
                share_of_peak=flops / seconds / peaks[config.precision],
                memory_gib=memory,
                hours_of_the_papers_run=preset.total_steps * preset.batch_size * seconds / batch / 3600,
                result="ok",
            )


def _step(report: Report, config: Any, *, compiled: bool) -> tuple[float, float]:
    """Seconds of an optimiser step with its batch, and the most memory of the device in GiB."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from id3pm.training.data import BatchesBeside
    from id3pm.training.loop import Trainer
    from id3pm.training.session import make_batches

    AcceleratorState._reset_state(reset_partial_state=True)  # precision and compiler are the process's otherwise
    backend = ("eager" if report.small else "inductor") if compiled else None
    accelerator = Accelerator(cpu=report.small, mixed_precision=config.precision, dynamo_backend=backend)
    faces = random_faces(config.unet, 2 * config.batch_size)
    batches = BatchesBeside(make_batches(config, faces), pin=not report.small)
    trainer = Trainer(config, batches, report.file.parent, {}, accelerator)
    try:
        trainer.train_step()
        if not report.small:
            torch.cuda.reset_peak_memory_stats()
        seconds = report.seconds(trainer.train_step, most_s=4.0)
        return seconds, 0.0 if report.small else torch.cuda.max_memory_allocated() / 2**30
    finally:
        batches.close()
        del trainer
        gc.collect()
        if not report.small:
            torch.cuda.empty_cache()


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
