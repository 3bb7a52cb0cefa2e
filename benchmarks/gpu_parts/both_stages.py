"""Both stages with their engines, and the ways of giving them requests in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from gpu_parts.report import Report
from gpu_parts.stages import Stage, conditions, paper
from id3pm.config import (
    PAPER_BASE_SAMPLING,
    PAPER_SR_DIFFUSION,
    PAPER_SR_SAMPLING,
    SamplingOptions,
)
from id3pm.diffusion.noise import STAGE_SR
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import UNetEngine
from id3pm.sampling.cascade import Cascade, CascadeImages
from id3pm.sampling.cost import warm_up
from id3pm.sampling.request import SampleRequest
from id3pm.sampling.scheduler import StepScheduler
from id3pm.sampling.wait_all import collect
from networks import TINY_SR, random_unet

QUEUE_DELAY_S = 0.1
"""As long as the dynamic batcher of `load.baseline` waits for a batch to fill."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One image: ID vector float32 [D], seed, and the steps of both stages."""

    vector: np.ndarray
    seed: int
    steps: int


OnImage = Callable[[object], None]
"""Takes the uint8 image [S, S, 3], or the error."""


class System(Protocol):
    """Something that makes images of both stages."""

    def submit(self, job: Job, on_image: OnImage) -> None:
        """Takes a request; `on_image` is called once, from any thread."""
        ...

    def close(self) -> None:
        """Ends its threads; engines stay."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Engines:
    """Both stages of one cascade, an engine for each, and the most images of a call: guided ones are two rows."""

    base: Stage
    sr: Stage
    base_engine: UNetEngine
    sr_engine: UNetEngine
    images: int


def cascade_stages(small: bool) -> tuple[Stage, Stage]:
    """The paper's networks with random weights; for a test two small ones that fit each other."""
    base, sr = paper(small)
    if small:
        size = base.config.image_size
        twice = dataclasses.replace(TINY_SR, image_size=2 * size, low_res_size=size)
        sr = Stage("small SR", twice, PAPER_SR_DIFFUSION, STAGE_SR, random_unet)
    return base, sr


@contextlib.contextmanager
def engines_of(report: Report, own_streams: bool = False) -> Iterator[Engines]:
    """Both engines with `exact` buckets, as they are served by default.

    Args:
        report: Where they run.
        own_streams: On a GPU: each stage on a stream of its own, else both on one.
    """
    (base, sr), images = cascade_stages(report.small), 2 if report.small else 8
    rows, precision = {base.name: 2 * images, sr.name: images}, "fp32" if report.small else "fp16"
    made = Engines(
        base,
        sr,
        *(
            stage.engine(report, precision, rows[stage.name], TorchArrays(report.device, own_streams))
            for stage in (base, sr)
        ),
        images,
    )
    yield made
    made.base_engine.close()
    made.sr_engine.close()


def options_of(steps: int) -> tuple[SamplingOptions, SamplingOptions]:
    """The paper's options with so many steps in each stage."""
    return tuple(dataclasses.replace(usual, steps=steps) for usual in (PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING))  # type: ignore[return-value]


def vectors_of(engines: Engines, people: int) -> np.ndarray:
    """ID vectors of L2 norm 1, float32 [people, D]."""
    return np.stack([conditions(engines.base.config, person)["identity"] for person in range(people)])


class InProcess:
    """Two step schedulers in this process, without any of the serving code."""

    def __init__(self, engines: Engines) -> None:
        base, sr = (
            StepScheduler(engine, stage.diffusion, stage.number, engines.images, cost=warm_up(engine, engines.images))
            for stage, engine in ((engines.base, engines.base_engine), (engines.sr, engines.sr_engine))
        )
        self.cascade = Cascade(base, sr)
        self._names = itertools.count()

    def request(self, job: Job) -> SampleRequest:
        """A request of its own id."""
        options = options_of(job.steps)[0]
        return SampleRequest(id=str(next(self._names)), seed=job.seed, options=options, identity=job.vector)

    def submit(self, job: Job, on_image: OnImage) -> None:
        """See `System`."""
        self.cascade.submit(self.request(job), options_of(job.steps)[1], lambda made: on_image(_image(made)))

    def close(self) -> None:
        """See `System`."""
        for scheduler in (self.cascade.base, self.cascade.sr):
            assert scheduler.close()


class RequestBatches:
    """Request-level batching with the same engines: a batch runs to its end before the next one begins.

    As `load.baseline_model` behind Triton's dynamic batcher: a batch is full, or its oldest request has waited for
    `QUEUE_DELAY_S`; requests of unequal steps cannot share a loop, and the shortest loop goes first.
    """

    def __init__(self, engines: Engines) -> None:
        self._inner = InProcess(engines)
        self._most = engines.images
        self._waiting: queue.SimpleQueue[tuple[Job, OnImage] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="request-batches", daemon=True)
        self._thread.start()

    def submit(self, job: Job, on_image: OnImage) -> None:
        """See `System`."""
        self._waiting.put((job, on_image))

    def close(self) -> None:
        """See `System`."""
        self._waiting.put(None)
        self._thread.join(60)
        self._inner.close()

    def _loop(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, until = [first], time.monotonic() + QUEUE_DELAY_S
            with contextlib.suppress(queue.Empty):
                while len(batch) < self._most:
                    more = self._waiting.get(timeout=max(until - time.monotonic(), 0.0))
                    assert more is not None, "closed before its requests were done"
                    batch.append(more)
            for steps in sorted({job.steps for job, _ in batch}):
                self._run(steps, [entry for entry in batch if entry[0].steps == steps])

    def _run(self, steps: int, batch: list[tuple[Job, OnImage]]) -> None:
        cascade, sr = self._inner.cascade, options_of(steps)[1]
        try:
            made: list[CascadeImages] = collect(
                [self._inner.request(job) for job, _ in batch],
                lambda request, done: cascade.submit(request, sr, done),
                cascade.cancel,
            )
        except Exception as error:  # each caller must hear of it
            for _, on_image in batch:
                on_image(error)
            return
        for (_, on_image), images in zip(batch, made, strict=True):
            on_image(images.image)


def _image(made: object) -> object:
    return made.image if isinstance(made, CascadeImages) else made
