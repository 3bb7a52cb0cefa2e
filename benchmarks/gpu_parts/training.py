"""Training of the paper's networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from gpu_parts.report import Report
from id3pm.config import UNetConfig
from networks import TINY_16, TINY_SR, unet_flops


def training(report: Report) -> None:
    """A training step of the paper's networks: images per second, memory, share of the peak, hours of the run."""
    from accelerate import Accelerator

    from id3pm.training.loop import Trainer
    from id3pm.training.presets import PAPER_BASE, PAPER_SR
    from id3pm.training.session import make_batches

    add = report.table()
    peak = report.peak_flop_s(torch.float32 if report.small else torch.bfloat16)
    for preset in (PAPER_BASE, PAPER_SR):
        batch = 2 if report.small else (64 if preset.stage == "base" else 8)
        unet = preset.unet
        if report.small:
            unet = TINY_16 if preset.stage == "base" else TINY_SR.at_size(32)
        config = dataclasses.replace(
            preset, unet=unet, train_size=unet.image_size, batch_size=batch, precision="no" if report.small else "bf16"
        )
        accelerator = Accelerator(cpu=report.small, mixed_precision=config.precision)
        batches = make_batches(config, random_faces(config.unet, 2 * batch))
        trainer = Trainer(config, batches, report.file.parent, {}, accelerator)
        trainer.train_step()
        if not report.small:
            torch.cuda.reset_peak_memory_stats()
        seconds = report.seconds(trainer.train_step, most_s=10.0)
        flops = 3 * unet_flops(unet) * batch  # backward takes twice what forward does
        memory = 0.0 if report.small else torch.cuda.max_memory_allocated() / 2**30
        add(
            network=f"paper {preset.stage}",
            precision=config.precision,
            batch=batch,
            images_per_s=batch / seconds,
            tflop_s=flops / seconds / 1e12,
            share_of_peak=flops / seconds / peak,
            memory_gib=memory,
            hours_of_the_papers_run=preset.total_steps * preset.batch_size * seconds / batch / 3600,
        )
        del trainer


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
