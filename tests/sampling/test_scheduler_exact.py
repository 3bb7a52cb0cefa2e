"""Equal requests give bit-identical images in any batch, on a real U-Net under onnxruntime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
from fake_engine import Inbox, KnownCost, LastImages, last_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.guidance import null_attributes, null_identity
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.diffusion.samplers import plan, sample
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.inputs import EngineInputs, FloatArray
from id3pm.formats.images import to_uint8
from id3pm.sampling.request import SampleRequest
from id3pm.sampling.scheduler import StepScheduler

BASE_SHAPE, SR_SHAPE = (3, 16, 16), (3, 32, 32)


def reference(engine: Engine, diffusion: DiffusionConfig, stage: int, request: SampleRequest) -> FloatArray:
    """The request alone, by the plain loop of `id3pm.diffusion`."""
    config = engine.config
    shape = (3, config.image_size, config.image_size)

    def model(x: FloatArray, timesteps: FloatArray, rows: np.ndarray, conditional: np.ndarray) -> FloatArray:
        inputs = {"x": np.ascontiguousarray(x), "timesteps": timesteps}
        yes = conditional[:, None]
        if config.identity_dim is not None:
            inputs["identity"] = np.where(yes, request.identity, null_identity(len(x), config.identity_dim))
        if config.attribute_dim is not None:
            nothing = null_attributes(len(x), config.attribute_dim)
            inputs["attributes"] = nothing if request.attributes is None else np.where(yes, request.attributes, nothing)
        if config.low_res_size is not None:
            assert request.low_res is not None
            inputs["low_res"] = np.repeat(request.low_res[None], len(x), axis=0)
        return engine.run(inputs)

    steps = plan(diffusion, request.options, config.learn_sigma)
    start = noise(request.seed, stage, 0, shape)[None]
    image: FloatArray = sample(model, start, [steps], lambda _, draw: noise(request.seed, stage, draw, shape))[0]
    return image


@pytest.fixture(scope="module")
def base_engine(base_folder: Path) -> Engine:
    return load_engine(base_folder, threads=1)


@pytest.fixture(scope="module")
def scheduler(base_engine: Engine) -> Iterator[StepScheduler]:
    """Three places on an engine of four rows: guided rows make it split its calls."""
    scheduler = StepScheduler(base_engine, tiny_engines.BASE_DIFFUSION, STAGE_BASE, max_rows=3, observer=LastImages())
    yield scheduler
    assert scheduler.close()


@st.composite
def options(draw: st.DrawFn) -> SamplingOptions:
    sampler = draw(st.sampled_from(["ddpm", "ddim", "dpmpp_2m"]))
    low = draw(st.integers(0, 99))
    return SamplingOptions(
        sampler=sampler,
        steps=draw(st.integers(1, 7)),
        guidance_scale=draw(st.sampled_from([1.0, 1.5, 2.0, 4.5])),
        guidance_low=low,
        guidance_high=draw(st.integers(low, 120)),
        dynamic_threshold=draw(st.sampled_from([0.0, 0.5, 0.99, 1.0])),
        eta=draw(st.sampled_from([0.0, 0.3, 1.0])) if sampler == "ddim" else 0.0,
    )


@st.composite
def mixtures(draw: st.DrawFn) -> list[SampleRequest]:
    requests = []
    for index in range(draw(st.integers(1, 6))):
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        with_attributes = draw(st.booleans())
        requests.append(
            SampleRequest(
                id=str(index),
                seed=draw(st.integers(0, 2**63 - 1)),
                options=draw(options()),
                identity=rng.standard_normal(8, dtype=np.float32),
                attributes=rng.random(11, dtype=np.float32) if with_attributes else None,
                priority=draw(st.integers(0, 3)),
            )
        )
    return requests


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(requests=mixtures())
def test_any_mixture_equals_each_request_alone(
    base_engine: Engine, scheduler: StepScheduler, requests: list[SampleRequest]
) -> None:
    inbox = Inbox()
    for request in requests:
        scheduler.submit(request, inbox.receiver(request.id))
    images = [inbox.sample(request.id).image for request in requests]
    for request, image in zip(requests, images, strict=True):
        expected = reference(base_engine, tiny_engines.BASE_DIFFUSION, STAGE_BASE, request)
        np.testing.assert_array_equal(last_image(scheduler, request.id), expected)
        np.testing.assert_array_equal(image, to_uint8(expected))


def test_the_first_step_has_the_mean_colour_of_the_data(base_engine: Engine) -> None:
    diffusion = dataclasses.replace(tiny_engines.BASE_DIFFUSION, data_mean=(-0.8, 0.1, 0.6))
    options = SamplingOptions(sampler="ddim", steps=3, spacing="logsnr")
    request = SampleRequest(id="one", seed=5, options=options, identity=np.ones(8, np.float32))
    scheduler, inbox = StepScheduler(base_engine, diffusion, STAGE_BASE, max_rows=2, observer=LastImages()), Inbox()
    scheduler.submit(request, inbox.receiver("one"))
    inbox.sample("one")
    image = last_image(scheduler, "one")
    assert scheduler.close()
    np.testing.assert_array_equal(image, reference(base_engine, diffusion, STAGE_BASE, request))
    assert not np.array_equal(image, reference(base_engine, tiny_engines.BASE_DIFFUSION, STAGE_BASE, request))


def test_same_seed_same_image_in_any_batch(base_engine: Engine) -> None:
    images = []
    for company, max_rows in [(0, 1), (3, 8), (7, 8), (7, 2)]:
        scheduler = StepScheduler(
            base_engine, tiny_engines.BASE_DIFFUSION, STAGE_BASE, max_rows=max_rows, observer=LastImages()
        )
        inbox = Inbox()
        for index in range(company + 1):
            mine = index == company
            request = SampleRequest(
                id="mine" if mine else str(index),
                seed=7 if mine else index + 100,
                options=SamplingOptions(steps=6 if mine else 3 + index),
                identity=np.full(8, 0.3 if mine else index, dtype=np.float32),
            )
            scheduler.submit(request, inbox.receiver(request.id))
        inbox.sample("mine")
        images.append(last_image(scheduler, "mine"))
        assert scheduler.close()
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


class Interrupted:
    """An engine during whose calls urgent requests arrive, so that the others must pause."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.config, self.max_batch, self.arrays = engine.config, engine.max_batch, engine.arrays
        self.description = engine.description
        self.calls = 0
        self.paused: list[int] = []
        self.scheduler: StepScheduler | None = None
        self.inbox = Inbox()

    def run(self, inputs: EngineInputs) -> FloatArray:
        assert self.scheduler is not None
        self.calls += 1
        self.paused.append(self.scheduler.status().paused)
        if self.calls in (3, 8, 10):
            for index in range(2):
                name = f"urgent {self.calls} {index}"
                options = SamplingOptions(steps=2 + index, guidance_scale=1.0)
                identity = np.full(8, index, dtype=np.float32)
                request = SampleRequest(id=name, seed=index, options=options, identity=identity, priority=0)
                self.scheduler.submit(request, self.inbox.receiver(name))
        return self._engine.run(inputs)

    def close(self) -> None:
        """Leaves the engine to its owner."""


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
def test_a_pause_changes_no_bit(base_engine: Engine, sampler: str) -> None:
    engine = Interrupted(base_engine)
    engine.scheduler = StepScheduler(
        engine, tiny_engines.BASE_DIFFUSION, STAGE_BASE, max_rows=2, cost=KnownCost(), observer=LastImages()
    )
    requests = [
        SampleRequest(
            id=str(seed),
            seed=seed,
            options=SamplingOptions(sampler=sampler, steps=7, guidance_scale=2.0),  # type: ignore[arg-type]
            identity=np.full(8, 0.1 * seed, dtype=np.float32),
        )
        for seed in range(2)
    ]
    inbox = Inbox()
    engine.scheduler.submit_all([(request, inbox.receiver(request.id)) for request in requests])
    for request in requests:
        expected = reference(base_engine, tiny_engines.BASE_DIFFUSION, STAGE_BASE, request)
        inbox.sample(request.id)
        np.testing.assert_array_equal(last_image(engine.scheduler, request.id), expected)
    assert max(engine.paused) == 2
    assert engine.scheduler.close()


def test_image_depends_on_seed_identity_attributes_and_guidance(scheduler: StepScheduler) -> None:
    first = SampleRequest(id="0", seed=1, options=SamplingOptions(steps=4), identity=np.ones(8, np.float32))
    others = [
        dataclasses.replace(first, seed=2),
        dataclasses.replace(first, identity=-np.ones(8, np.float32)),
        dataclasses.replace(first, attributes=np.ones(11, np.float32)),
        dataclasses.replace(first, options=SamplingOptions(steps=4, guidance_scale=3.0)),
    ]
    inbox = Inbox()
    for index, request in enumerate([first, *others]):
        scheduler.submit(dataclasses.replace(request, id=str(index)), inbox.receiver(str(index)))
    images = [inbox.sample(str(index)).image for index in range(5)]
    for image in images[1:]:
        assert np.abs(image.astype(int) - images[0]).max() > 1


def test_super_resolution_rows_equal_the_reference(sr_folder: Path) -> None:
    engine = load_engine(sr_folder, threads=1)
    scheduler = StepScheduler(engine, tiny_engines.SR_DIFFUSION, STAGE_SR, max_rows=3, observer=LastImages())
    rng = np.random.default_rng(0)
    inbox = Inbox()
    requests = [
        SampleRequest(
            id=str(seed),
            seed=seed,
            options=dataclasses.replace(tiny_engines.SR_SAMPLING, steps=2 + seed),
            low_res=rng.uniform(-1, 1, BASE_SHAPE).astype(np.float32),
        )
        for seed in range(3)
    ]
    for request in requests:
        scheduler.submit(request, inbox.receiver(request.id))
    for request in requests:
        inbox.sample(request.id)
        image = last_image(scheduler, request.id)
        assert image.shape == SR_SHAPE and image.dtype == np.float32
        np.testing.assert_array_equal(image, reference(engine, tiny_engines.SR_DIFFUSION, STAGE_SR, request))
    assert scheduler.close()
