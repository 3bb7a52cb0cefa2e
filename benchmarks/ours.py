"""This package as a contender: an engine under the step scheduler's batch, and both stages; without PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contest import GUIDANCE_SCALE, PERCENTILE, Timing, Turn, digest, identities
from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.diffusion.samplers import StepPlan, plan
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.inputs import EngineInputs
from id3pm.engines.manifest import read_manifest
from id3pm.formats.images import to_chw
from id3pm.pipeline import Pipeline
from id3pm.sampling.batch import RowBatch
from id3pm.sampling.options import both_stages
from id3pm.sampling.request import SampleRequest, validated
from id3pm.sampling.row import Row


class Ours:
    """One of our engines under the step scheduler's batch."""

    def __init__(self, engine: str, images: int, steps: int) -> None:
        manifest = read_manifest(Path(engine))
        self._engine = _Timed(load_engine(Path(engine)))
        options = SamplingOptions(steps=steps, guidance_scale=GUIDANCE_SCALE, dynamic_threshold=PERCENTILE)
        self._plan = plan(manifest.diffusion, options, manifest.unet.learn_sigma)
        vectors = identities(manifest.unet, images)
        self._requests = [
            validated(SampleRequest(id=str(i), seed=i, options=options, identity=vectors[i]), manifest.unet)
            for i in range(images)
        ]

    def sample(self) -> Timing:
        """Samples all images once."""
        self._engine.seconds = 0.0
        start = time.perf_counter()
        self.images()
        return Timing(time.perf_counter() - start, self._engine.seconds)

    def images(self) -> NDArray[np.float32]:
        """Samples [N, 3, S, S] with the seeds 0 to N - 1."""
        done = _whole_batch(self._engine, STAGE_BASE, self._requests, self._plan)
        return np.stack([row.x0 for row, _ in done])  # before it is rounded to 8 bits


class _Timed:
    """An engine that adds up the time of its calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.config, self.max_batch, self.arrays = engine.config, engine.max_batch, engine.arrays
        self.description = engine.description
        self.seconds = 0.0

    def run(self, inputs: EngineInputs) -> NDArray[np.float32]:
        start = time.perf_counter()
        output = self._engine.run(inputs)
        self.seconds += time.perf_counter() - start
        return output

    def close(self) -> None:
        self._engine.close()


def _whole_batch(engine: Engine, stage: int, requests: Sequence[SampleRequest], steps: StepPlan) -> list[Any]:
    """The rows and results of requests that begin and end together, in order."""
    batch = RowBatch(engine, stage)
    batch.add(*(Row(request=request, plan=steps, on_done=lambda _: None, submitted=0.0) for request in requests))
    done: list[Any] = []
    while batch.rows:
        done += batch.collect(batch.step())
    batch.close()
    return done


def _turn(make: Callable[[], NDArray[np.uint8]]) -> Turn:
    """What it takes to make images [N, S, S, 3] in this process."""
    start, spent = time.perf_counter(), time.process_time()
    images = make()
    seconds, processor_s = time.perf_counter() - start, time.process_time() - spent
    return Turn(seconds, {"in process": processor_s}, 0.0, digest(list(images)))


class PlainBatches:
    """Both stages one after the other, in batches that begin and end together: no scheduler, no policy, no thread."""

    def __init__(self, repository: str, images: int, steps: int, sr_steps: int | None = None) -> None:
        folders = [Path(repository) / model / "1" / "engine" for model in ("denoiser_64", "super_resolution")]
        self._manifests = [read_manifest(folder) for folder in folders]
        self._engines = [load_engine(folder) for folder in folders]
        base, sr = self._manifests
        options = both_stages(base.sampling, sr.sampling, {"steps": steps, "sr_steps": sr_steps or steps})
        self._options = options
        self._plans = [
            plan(each.diffusion, chosen, each.unet.learn_sigma)
            for each, chosen in zip(self._manifests, options, strict=True)
        ]
        self._vector = identities(base.unet, 1)[0]
        self._images = images

    def sample(self) -> Turn:
        """All images at once."""
        return _turn(self._both)

    def _both(self) -> NDArray[np.uint8]:
        small = self._stage(STAGE_BASE, [{"identity": self._vector}] * self._images)
        return self._stage(STAGE_SR, [{"low_res": low_res} for low_res in to_chw(small)])

    def _stage(self, stage: int, inputs: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
        """The images of a stage, uint8 [N, S, S, 3], with the seeds 0 to N - 1."""
        unet, engine = self._manifests[stage].unet, self._engines[stage]
        requests = [
            validated(SampleRequest(id=str(seed), seed=seed, options=self._options[stage], **given), unet)
            for seed, given in enumerate(inputs)
        ]
        size = engine.max_batch
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        done = [one for part in parts for one in _whole_batch(engine, stage, part, self._plans[stage])]
        return np.stack([sample.image for _, sample in done])


class Cascade:
    """Both stages in process, as the server runs them; see `id3pm.pipeline`."""

    def __init__(self, repository: str, images: int, steps: int, sr_steps: int | None = None) -> None:
        self._pipeline = Pipeline.load(repository)
        self._vector = identities(self._pipeline.base_manifest.unet, 1)[0]
        self._images, self._steps, self._sr_steps = images, steps, sr_steps or steps

    def sample(self) -> Turn:
        """All images at once, `steps` steps in the base stage and `sr_steps`, or as many, in super-resolution."""
        return _turn(self._both)

    def _both(self) -> NDArray[np.uint8]:
        given = {"steps": self._steps, "sr_steps": self._sr_steps}
        return self._pipeline.generate(self._vector, range(self._images), **given).images

    def preset(self, name: str, images: int, steps: int | None = None) -> float:
        """Seconds of one image when `images` are made together as a preset says, in both stages.

        Args:
            name: The preset.
            images: How many together.
            steps: Take so many steps in each stage instead of the preset's own.
        """
        given = {} if steps is None else {"steps": steps, "sr_steps": steps}
        start = time.perf_counter()
        self._pipeline.generate(self._vector, range(images), preset=name, **given)
        return (time.perf_counter() - start) / images
