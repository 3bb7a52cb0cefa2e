"""This package as a contender: an engine under the step scheduler's batch, and both stages; without PyTorch."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contest import GUIDANCE_SCALE, PERCENTILE, Timing, identities
from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE
from id3pm.diffusion.samplers import plan
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.inputs import EngineInputs
from id3pm.engines.manifest import read_manifest
from id3pm.pipeline import Pipeline
from id3pm.sampling.batch import RowBatch
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
        batch = RowBatch(self._engine, STAGE_BASE)
        for request in self._requests:
            batch.add(Row(request=request, plan=self._plan, on_done=lambda _: None, submitted=0.0))
        done: list[Any] = []
        while batch.rows:
            done += batch.collect(batch.step())
        batch.close()
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


class Cascade:
    """Both stages in process, as the server runs them; see `id3pm.pipeline`."""

    def __init__(self, repository: str, images: int, steps: int, sr_steps: int | None = None) -> None:
        self._pipeline = Pipeline.load(repository)
        self._vector = identities(self._pipeline.base_manifest.unet, 1)[0]
        self._images, self._steps, self._sr_steps = images, steps, sr_steps or steps

    def sample(self) -> Timing:
        """All images at once, `steps` steps in the base stage and `sr_steps`, or as many, in super-resolution."""
        start = time.perf_counter()
        self._pipeline.generate(self._vector, range(self._images), steps=self._steps, sr_steps=self._sr_steps)
        return Timing(time.perf_counter() - start, math.nan)

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
