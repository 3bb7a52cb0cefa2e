from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
from fake_engine import DIFFUSION, FakeEngine, LastImages, last_image, request
from numpy.typing import NDArray
from waiting import wait_until

from id3pm.config import SamplingOptions, UNetConfig
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.engines.base import load_engine
from id3pm.engines.inputs import EngineInputs, FloatArray
from id3pm.errors import CancelledError, EngineError, Id3pmError, InvalidInputError, OverloadedError
from id3pm.formats.images import to_chw
from id3pm.sampling.cascade import Cascade, CascadeImages
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.scheduler import StepScheduler

SR_OPTIONS = SamplingOptions(steps=3, guidance_scale=1.0, dynamic_threshold=0.0)
SR_CONFIG = UNetConfig(
    image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), low_res_size=8
)


class FakeUpsampler(FakeEngine):
    """As `FakeEngine`, conditioned on the low-resolution image instead of an identity."""

    def __init__(self, *, held: bool = False) -> None:
        super().__init__(SR_CONFIG, held=held)
        self._inner = FakeEngine(dataclasses.replace(SR_CONFIG, low_res_size=None, identity_dim=4))

    def run(self, inputs: EngineInputs) -> FloatArray:
        inner = {name: array for name, array in inputs.items() if name != "low_res"}
        inner["identity"] = np.ascontiguousarray(inputs["low_res"][:, 0, 0, :4])
        self.calls.append(len(inputs["x"]))
        assert self._allowed is None or self._allowed.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        return self._inner.run(inner)


class Chain:
    """A cascade of two fake engines and the outcomes of its requests."""

    def __init__(self, *, base_held: bool = False, sr_held: bool = False) -> None:
        self.base, self.sr = FakeEngine(held=base_held), FakeUpsampler(held=sr_held)
        self.cascade = Cascade(
            StepScheduler(self.base, DIFFUSION, STAGE_BASE),
            StepScheduler(self.sr, DIFFUSION, STAGE_SR, max_rows=1, max_waiting=0),
        )
        self.outcomes: dict[str, CascadeImages | Id3pmError] = {}

    def submit(self, name: str) -> None:
        self.cascade.submit(request(name), SR_OPTIONS, lambda outcome: self.outcomes.update({name: outcome}))

    def outcome(self, name: str) -> CascadeImages | Id3pmError:
        wait_until(lambda: name in self.outcomes)
        return self.outcomes[name]

    def close(self) -> None:
        for scheduler in (self.cascade.base, self.cascade.sr):
            assert scheduler.close()


@pytest.fixture
def chain() -> Iterator[Chain]:
    chain = Chain()
    yield chain
    chain.close()


def run_alone(scheduler: StepScheduler, one: SampleRequest) -> NDArray[np.uint8]:
    outcomes: list[Sample | Id3pmError] = []
    scheduler.submit(one, outcomes.append)
    wait_until(lambda: bool(outcomes))
    assert isinstance(outcomes[0], Sample), outcomes[0]
    return outcomes[0].image


def test_cascade_is_both_stages_with_a_uint8_image_between(base_folder: Path, sr_folder: Path) -> None:
    base = StepScheduler(load_engine(base_folder), tiny_engines.BASE_DIFFUSION, STAGE_BASE)
    sr = StepScheduler(load_engine(sr_folder), tiny_engines.SR_DIFFUSION, STAGE_SR)
    first = SampleRequest(id="a", seed=5, options=tiny_engines.BASE_SAMPLING, identity=np.ones(8, np.float32))
    outcomes: list[CascadeImages | Id3pmError] = []
    Cascade(base, sr).submit(first, tiny_engines.SR_SAMPLING, outcomes.append)
    wait_until(lambda: bool(outcomes))
    images = outcomes[0]
    assert isinstance(images, CascadeImages)
    image_64 = run_alone(base, first)
    second = SampleRequest(id="b", seed=5, options=tiny_engines.SR_SAMPLING, low_res=to_chw(image_64))
    np.testing.assert_array_equal(images.image_64, image_64)
    np.testing.assert_array_equal(images.image, run_alone(sr, second))
    assert images.image_64.shape == (16, 16, 3) and images.image.shape == (32, 32, 3)
    assert base.close() and sr.close()


def test_failure_of_the_first_stage_ends_the_request(chain: Chain) -> None:
    chain.base.error = RuntimeError("broken")
    chain.submit("a")
    assert isinstance(chain.outcome("a"), EngineError)
    assert not chain.sr.calls


def test_failure_of_the_second_stage_ends_the_request(chain: Chain) -> None:
    chain.sr.error = RuntimeError("broken")
    chain.submit("a")
    assert isinstance(chain.outcome("a"), EngineError)
    chain.sr.error = None
    del chain.outcomes["a"]
    chain.submit("a")
    assert isinstance(chain.outcome("a"), CascadeImages)


def test_request_that_the_second_stage_turns_away_is_answered() -> None:
    chain = Chain(sr_held=True)
    chain.submit("a")
    wait_until(lambda: bool(chain.sr.calls))
    chain.submit("b")
    assert isinstance(chain.outcome("b"), OverloadedError)
    chain.sr.let(3)
    assert isinstance(chain.outcome("a"), CascadeImages)
    chain.close()


def test_refused_request_leaves_nothing_behind(chain: Chain) -> None:
    bad = dataclasses.replace(request("a"), identity=None)
    with pytest.raises(InvalidInputError, match="identity: missing"):
        chain.cascade.submit(bad, SR_OPTIONS, lambda outcome: None)
    chain.submit("a")
    assert isinstance(chain.outcome("a"), CascadeImages)


@pytest.mark.parametrize("held", ["base", "sr"])
def test_id_is_taken_until_both_stages_are_done_and_cancel_finds_either(held: str) -> None:
    chain = Chain(base_held=held == "base", sr_held=held == "sr")
    engine = chain.base if held == "base" else chain.sr
    chain.submit("a")
    wait_until(lambda: bool(engine.calls))
    with pytest.raises(InvalidInputError, match="in flight"):
        chain.submit("a")
    assert chain.cascade.cancel("a")
    assert isinstance(chain.outcome("a"), CancelledError)
    assert not chain.cascade.cancel("a")
    engine.let(100)
    chain.close()


def test_cancel_between_the_stages_is_not_lost() -> None:
    chain = Chain(sr_held=True)
    submit = chain.cascade.sr.submit

    def cancel_just_before(*args: object) -> None:
        assert chain.cascade.cancel("a")
        submit(*args)  # type: ignore[arg-type]

    chain.cascade.sr.submit = cancel_just_before  # type: ignore[method-assign]
    chain.submit("a")
    assert isinstance(chain.outcome("a"), CancelledError)
    chain.sr.let(100)
    chain.close()


def test_a_consistent_enlargement_reduces_to_its_small_image() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.5, 0.5, (2, 3, 8, 8)).astype(np.float32)
    scheduler = StepScheduler(FakeUpsampler(), DIFFUSION, STAGE_SR, observer=LastImages())
    outcomes: dict[str, Sample | Id3pmError] = {}
    for name, image, share in (("loose", images[0], 0.0), ("kept", images[1], 1.0)):
        options = dataclasses.replace(SR_OPTIONS, consistency=share)
        asked = SampleRequest(id=name, seed=3, options=options, low_res=image)
        scheduler.submit(asked, lambda outcome, name=name: outcomes.update({name: outcome}))  # type: ignore[misc]
    wait_until(lambda: len(outcomes) == 2)
    scheduler.close()
    for (name, holds), image in zip((("loose", False), ("kept", True)), images, strict=True):
        assert isinstance(outcomes[name], Sample)
        reduced = last_image(scheduler, name).reshape(3, 8, 2, 8, 2).mean(axis=(2, 4))
        assert np.allclose(reduced, image, atol=1e-5) == holds, name
