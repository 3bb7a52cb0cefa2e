"""The networks that are measured, and images made with them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpu_parts.report import Report
from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    DiffusionConfig,
    SamplingOptions,
    UNetConfig,
)
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.engines.arrays import Arrays
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import TorchPrecision, UNetEngine
from id3pm.formats.bundle import load_weights, read_bundle
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.scheduler import StepScheduler
from id3pm.unet.model import UNet, load_unet
from networks import TINY_16, TINY_SR, random_unet

BUNDLE = Path(__file__).parents[2] / "bundles" / "demo"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A network with its process and its number in the seed contract."""

    name: str
    config: UNetConfig
    diffusion: DiffusionConfig
    number: int
    weights: Callable[[UNetConfig], UNet]

    def engine(
        self,
        report: Report,
        precision: TorchPrecision,
        rows: int,
        arrays: Arrays | None = None,
        compiled: bool = False,
    ) -> UNetEngine:
        """The network on the device, for at most so many evaluations."""
        here = arrays or TorchArrays(report.device)
        return UNetEngine(self.weights(self.config), rows, report.device, precision, here, [rows], compiled)


def demo(small: bool) -> list[Stage]:
    """The stages of the demo bundle; for a test the paper's stand-ins, of which one evaluation is cheap."""
    if small:
        return paper(small)
    bundle = read_bundle(BUNDLE)

    def base_weights(config: UNetConfig) -> UNet:
        return load_unet(config, load_weights(BUNDLE, "base"))

    def sr_weights(config: UNetConfig) -> UNet:
        return load_unet(config, load_weights(BUNDLE, "sr"))

    return [
        Stage("demo 64 px", bundle.base, bundle.base_diffusion, STAGE_BASE, base_weights),
        Stage("demo 256 px", bundle.sr, bundle.sr_diffusion, STAGE_SR, sr_weights),
    ]


def paper(small: bool) -> list[Stage]:
    """The paper's networks with random weights."""
    base, sr = (TINY_16, TINY_SR.at_size(32)) if small else (PAPER_BASE_64, PAPER_SR_256)
    return [
        Stage("paper 64 px", base, PAPER_BASE_DIFFUSION, STAGE_BASE, random_unet),
        Stage("paper 256 px", sr, PAPER_SR_DIFFUSION, STAGE_SR, random_unet),
    ]


def conditions(config: UNetConfig, seed: int) -> dict[str, np.ndarray]:
    """ID vector and small image of an image."""
    rng = np.random.default_rng(seed)
    shapes = {name: shape[1:] for name, shape in input_shapes(config, 1).items() if name not in ("x", "timesteps")}
    made = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    if "identity" in made:
        made["identity"] /= np.linalg.norm(made["identity"])
    if "low_res" in made:
        made["low_res"] = np.tanh(made["low_res"])
    return made


def images(stage: Stage, engine: UNetEngine, count: int, steps: int, max_rows: int) -> tuple[np.ndarray, float]:
    """Images of the seeds 0, 1, ..., and the seconds that they took together."""
    scheduler = StepScheduler(engine, stage.diffusion, stage.number, max_rows=max_rows, max_waiting=count)
    options = SamplingOptions(steps=steps, guidance_scale=2.0 if stage.config.identity_dim else 1.0)
    done: dict[str, Any] = {}
    left = threading.Semaphore(0)

    def receiver(name: str) -> Callable[[object], None]:
        def receive(outcome: object) -> None:
            done[name] = outcome
            left.release()

        return receive

    requests = [SampleRequest(id=str(n), seed=n, options=options, **conditions(stage.config, n)) for n in range(count)]
    start = time.perf_counter()
    scheduler.submit_all([(request, receiver(request.id)) for request in requests])
    for _ in range(count):
        assert left.acquire(timeout=600)
    seconds = time.perf_counter() - start
    scheduler.close()
    for outcome in done.values():
        assert isinstance(outcome, Sample), outcome
    return np.stack([done[str(n)].image for n in range(count)]), seconds
