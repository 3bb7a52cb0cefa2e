"""One session of distillation: the teacher's results, then the student, with checkpoints and pictures on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from id3pm.config import SamplingOptions
from id3pm.errors import ConfigError, InvalidInputError
from id3pm.formats.bundle import read_bundle
from id3pm.training import checkpoint, preview
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.loop import Distiller
from id3pm.training.distillation.options import DistillOptions
from id3pm.training.distillation.pairs import ROWS_PER_EARLIER, Pairs
from id3pm.training.distillation.results import teachers_results
from id3pm.training.distillation.start import new_run
from id3pm.training.distillation.student import require_same_network
from id3pm.training.history import HISTORY_FILE, cut_history
from id3pm.training.stepped_run import Losses
from id3pm.training.stop_signal import StopSignal

PREVIEW_FACES = 8


def distill(config: DistillConfig, options: DistillOptions) -> int:
    """Makes the teacher's results that are missing, then trains; always ends with a checkpoint.

    Returns:
        Optimiser steps done in the run so far.

    Raises:
        InvalidInputError: Neither data nor stream, or they do not fit the teacher; or both `resume` and `start_from`.
        ConfigError: A batch that the processes cannot share.
        BundleError, ConfigError: `start_from` cannot be read, or is another network.
        CheckpointError: The folder holds another run.
        EngineError: The face engine folder is not usable.
    """
    if options.resume and options.start_from is not None:
        raise InvalidInputError("--resume goes on from the run's own checkpoint: leave --start-from out")
    if not options.resume:
        checkpoint.require_none(options.out)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    accelerator = Accelerator(cpu=options.cpu, mixed_precision=config.precision)
    _check_batch(config, accelerator.num_processes)
    bundle = read_bundle(options.teacher)
    if options.start_from is not None:
        require_same_network(config, read_bundle(options.start_from))
    with StopSignal() as stopped:
        made = teachers_results(config, options, bundle, accelerator, stopped)
        if made is None:
            return 0
        pairs, teacher = made
        distiller = new_run(config, options, bundle, pairs, teacher, accelerator)
        if options.resume and (options.out / checkpoint.FILE_NAME).exists():
            distiller.resume()
        started = time.monotonic()
        deadline = float("inf") if options.max_minutes is None else started + 60 * options.max_minutes
        _steps(distiller, pairs, options, lambda: stopped() or time.monotonic() >= deadline)
        teacher.close()
    return distiller.step


def _check_batch(config: DistillConfig, processes: int) -> None:
    """Before the teacher makes its results, which may take hours."""
    rows = ROWS_PER_EARLIER if config.steps > 1 else 1
    if config.batch_size % (rows * processes):
        raise ConfigError(
            f"batch_size={config.batch_size}: must be a multiple of {rows} for each of {processes} processes"
        )


def _steps(distiller: Distiller, pairs: Pairs, options: DistillOptions, should_stop: Callable[[], bool]) -> None:
    recent: list[Losses] = []
    saved_at = time.monotonic()
    history = options.out / HISTORY_FILE
    main = distiller.is_main_process
    if main:
        cut_history(history, distiller.step)
    total = distiller.config.total_steps
    with tqdm(total=total, initial=distiller.step, unit="step", disable=not main, mininterval=1.0) as bar:
        for step, losses in distiller.run(should_stop):
            recent.append(losses)
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            bar.update()
            if step % options.log_every == 0:
                means = {name: float(np.mean([one[name] for one in recent])) for name in losses}
                recent.clear()
                if main:
                    line = {"step": step, "seconds": round(distiller.seconds, 1), **means}
                    with history.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                if distiller.agree(time.monotonic() - saved_at > 60 * options.save_minutes):
                    distiller.save()
                    _pictures(distiller, pairs, options.out)
                    saved_at = time.monotonic()
    distiller.save()
    _pictures(distiller, pairs, options.out)


def _pictures(distiller: Distiller, pairs: Pairs, out: Path) -> None:
    """The first pairs: the teacher's images, and below them the student's after 1 .. K steps."""
    if not distiller.is_main_process:
        return
    config = distiller.config
    count = min(PREVIEW_FACES, len(pairs))
    batch = pairs.rows(np.arange(count)).share(0, 1, next(distiller.unet.parameters()).device)

    def conditions(rows: preview.Rows, conditional: Any) -> dict[str, torch.Tensor]:
        return {name: value[torch.from_numpy(rows).to(value.device)] for name, value in batch.conditions.items()}

    seeds = pairs.arrays["seeds"][:count].tolist()
    grid = [pairs.arrays["results"][:count]]
    with distiller.averaged() as unet:
        for steps in range(1, config.steps + 1):
            how = SamplingOptions(sampler="student", steps=steps, dynamic_threshold=0.0)
            grid.append(preview.generate(unet, config.diffusion, how, seeds, conditions))
    preview.save_picture(out / f"samples_{distiller.step:07d}.png", preview.tile(grid), scale=2)
