"""Rows on a device: the images of the host, no copy beyond the budget, a loop that runs one step ahead."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
import torch
from fake_engine import CONFIG, DIFFUSION, POISON, FakeEngine, Inbox, request
from strict_arrays import StrictArrays
from strict_engine import HostEngine, StrictEngine
from tiny_bundle import write_tiny_bundle
from waiting import wait_until

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.engines.arrays import HOST
from id3pm.engines.inputs import EngineInputs, assert_inputs, input_shapes
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import CancelledError, EngineError
from id3pm.formats.bundle import Stage
from id3pm.sampling.cost import CostModel
from id3pm.sampling.observer import Observer
from id3pm.sampling.request import SampleRequest
from id3pm.sampling.row import Row
from id3pm.sampling.scheduler import StepScheduler

KINDS = [
    SamplingOptions(sampler="ddpm", steps=9, guidance_scale=2.0, dynamic_threshold=0.9),
    SamplingOptions(sampler="ddim", steps=5, guidance_scale=1.0, eta=1.0),
    SamplingOptions(sampler="dpmpp_2m", steps=7, guidance_scale=3.0, guidance_low=20, guidance_high=70),
    SamplingOptions(sampler="ddpm", steps=3, guidance_scale=1.0),
    SamplingOptions(sampler="dpmpp_2m", steps=4, guidance_scale=1.0, dynamic_threshold=0.5),
]
UPSAMPLER = dataclasses.replace(CONFIG, identity_dim=None, image_size=16, low_res_size=8)


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return folder


def images(engine: FakeEngine, requests: list[SampleRequest], stage: int, max_rows: int) -> list[np.ndarray]:
    scheduler, inbox = StepScheduler(engine, DIFFUSION, stage, max_rows=max_rows), Inbox()
    scheduler.submit_all([(one, inbox.receiver(one.id)) for one in requests])
    made = [inbox.sample(one.id).image for one in requests]
    assert scheduler.close()
    return made


@pytest.mark.parametrize("max_rows", [2, 5])
def test_the_device_gives_the_images_of_the_host(max_rows: int) -> None:
    requests = [request(str(n), seed=n, options=options, identity=0.1 * n) for n, options in enumerate(KINDS)]
    for stage, config, those in (
        (STAGE_BASE, CONFIG, requests),
        (
            STAGE_SR,
            UPSAMPLER,
            [
                SampleRequest(
                    id=str(n),
                    seed=n,
                    options=SamplingOptions(steps=3 + n, guidance_scale=1.0, consistency=0.5 * n),
                    low_res=np.random.default_rng(n).uniform(-1, 1, (3, 8, 8)).astype(np.float32),
                )
                for n in range(3)
            ],
        ),
    ):
        on_host = images(HostEngine(config), those, stage, max_rows)
        on_device = images(StrictEngine(config), those, stage, max_rows)
        for host, device in zip(on_host, on_device, strict=True):
            np.testing.assert_array_equal(device, host)


def test_a_step_moves_coefficients_noise_and_flags() -> None:
    """64 numbers a row at the most, 4 bytes of noise per pixel and channel, one flag per evaluation back."""
    engine, rows, steps = StrictEngine(), 8, 6
    options = SamplingOptions(sampler="ddpm", steps=steps, guidance_scale=2.0, dynamic_threshold=0.9)
    images(engine, [request(str(n), seed=n, options=options) for n in range(rows)], STAGE_BASE, rows)
    moved, pixels = engine.strict, 3 * 8 * 8
    noise = [size for size in moved.to_device if size == 4 * pixels]
    assert len(noise) == rows * steps, "x_T, and every step's noise but the last's"
    packed = [size for size in moved.to_device if size != 4 * pixels]
    assert sum(packed) <= steps * rows * 64 * 4 + rows * 2 * 4 * 4, "identity and its null vector come once"
    assert sum(moved.from_device) == steps * 2 * rows + rows * pixels


def test_the_next_step_is_enqueued_before_the_result_of_this_one_is_read() -> None:
    engine, inbox = StrictEngine(held=True), Inbox()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    scheduler.submit(request("a", options=SamplingOptions(steps=4, guidance_scale=1.0)), inbox.receiver("a"))
    for step in range(4):
        wait_until(lambda step=step: len(engine.calls) == step + 1)  # type: ignore[misc]
        assert engine.strict.waits == max(0, step - 1)
        progress = scheduler.progress("a", preview=False)
        assert progress is not None and progress.step == max(0, step - 1), "what the host has heard of"
        engine.let(1)
    assert inbox.sample("a").steps == 4
    assert scheduler.close()


def test_a_preview_is_of_the_step_that_progress_names() -> None:
    engine, inbox = StrictEngine(held=True), Inbox()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    options = SamplingOptions(sampler="ddim", steps=5, guidance_scale=1.0)
    scheduler.submit(request("a", seed=4, options=options), inbox.receiver("a"))
    seen = {}
    for step in range(5):
        wait_until(lambda step=step: len(engine.calls) == step + 1)  # type: ignore[misc]
        progress = scheduler.progress("a")
        assert progress is not None
        seen[progress.step] = progress.preview
        engine.let(1)
    inbox.sample("a")
    assert scheduler.close()
    assert seen[0] is None and set(seen) == {0, 1, 2, 3}
    assert engine.strict.beside == 3, "a preview waits for no step under way"
    shorter = HostEngine(held=True)
    scheduler = StepScheduler(shorter, DIFFUSION, STAGE_BASE)
    scheduler.submit(request("a", seed=4, options=options), inbox.receiver("again"))
    for step in range(4):
        wait_until(lambda step=step: len(shorter.calls) == step + 1)  # type: ignore[misc]
        progress = scheduler.progress("a")
        assert progress is not None and progress.step == step
        if step:
            np.testing.assert_array_equal(progress.preview, seen[step])
        shorter.let(1)
    shorter.let(9)
    inbox.sample("again")
    assert scheduler.close()


def test_a_cancelled_row_takes_part_in_no_step_after_the_one_that_is_enqueued() -> None:
    engine, inbox = StrictEngine(held=True), Inbox()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    for name in ("stays", "goes"):
        scheduler.submit(request(name, options=SamplingOptions(steps=8, guidance_scale=1.0)), inbox.receiver(name))
    wait_until(lambda: bool(engine.calls))
    engine.let(3)
    wait_until(lambda: len(engine.calls) == 4)
    scheduler.cancel("goes")
    assert isinstance(inbox.outcome("goes"), CancelledError)
    engine.let(100)
    inbox.sample("stays")
    assert scheduler.close()
    assert set(engine.calls[5:]) == {1}


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_row_that_is_not_finite_fails_alone_a_step_later(steps: int) -> None:
    engine, inbox = StrictEngine(), Inbox()
    options = SamplingOptions(steps=steps, guidance_scale=2.0)
    good = images(StrictEngine(), [request("good", options=options)], STAGE_BASE, 4)[0]
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    rows = {"good": 1.0, "bad": POISON}
    scheduler.submit_all(
        [(request(name, options=options, identity=value), inbox.receiver(name)) for name, value in rows.items()]
    )
    assert "step 1 is not finite" in str(inbox.error("bad"))
    np.testing.assert_array_equal(inbox.sample("good").image, good)
    assert scheduler.close()


def test_a_step_that_fails_is_tried_again_alone_and_what_was_enqueued_is_not_lost() -> None:
    engine, inbox = StrictEngine(held=True), Inbox()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    short, long = (SamplingOptions(steps=count, guidance_scale=1.0) for count in (2, 6))
    scheduler.submit_all(
        [
            (request("short", options=short), inbox.receiver("short")),
            (request("long", options=long), inbox.receiver("long")),
        ]
    )
    wait_until(lambda: bool(engine.calls))
    engine.let(2)
    wait_until(lambda: len(engine.calls) == 3)  # the last step of the short one is enqueued, not read
    engine.error = MemoryError()
    engine.let(1)
    wait_until(lambda: len(engine.calls) == 4)
    engine.error = None
    engine.let(100)
    assert inbox.sample("short").steps == 2 and inbox.sample("long").steps == 6
    np.testing.assert_array_equal(
        inbox.sample("long").image, images(HostEngine(), [request("long", options=long)], STAGE_BASE, 1)[0]
    )
    assert scheduler.close()


def test_a_device_that_fails_when_it_is_waited_for_ends_what_had_begun_and_nothing_else() -> None:
    engine, inbox = StrictEngine(), Inbox()
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE)
    to_host = engine.strict.to_host

    def broken(array: object) -> object:
        def wait() -> object:
            engine.strict.to_host = to_host  # type: ignore[method-assign]
            raise RuntimeError("an illegal memory access was encountered")

        return wait

    engine.strict.to_host = broken  # type: ignore[method-assign, assignment]
    scheduler.submit(request("a"), inbox.receiver("a"))
    error = inbox.error("a")
    assert isinstance(error, EngineError) and "illegal" not in str(error)
    scheduler.submit(request("b"), inbox.receiver("b"))
    inbox.sample("b")
    assert scheduler.close()


def test_no_thread_outlives_its_scheduler() -> None:
    before = set(threading.enumerate())
    images(StrictEngine(), [request(str(n), seed=n) for n in range(4)], STAGE_BASE, 4)
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("stage", ["base", "sr"])
def test_rows_that_live_in_torch_give_the_images_of_rows_in_numpy(tiny_bundle: Path, stage: Stage) -> None:
    images = []
    for arrays in (HOST, TorchArrays("cpu")):
        engine = TorchEngine(tiny_bundle, stage, arrays=arrays)
        scheduler, inbox = StepScheduler(engine, tiny_engines.BASE_DIFFUSION, 0, max_rows=3), Inbox()
        for seed, sampler in enumerate(("ddpm", "ddim", "dpmpp_2m")):
            shapes = {name: shape[1:] for name, shape in input_shapes(engine.config, 1).items()}
            conditional = "identity" in shapes
            options = SamplingOptions(
                sampler=sampler,  # type: ignore[arg-type]
                steps=3 + seed,
                guidance_scale=2.0 if conditional else 1.0,
                dynamic_threshold=0.9 * (seed == 1),
            )
            rng = np.random.default_rng(seed)
            given = {
                n: rng.uniform(-1, 1, s).astype(np.float32) for n, s in shapes.items() if n not in ("x", "timesteps")
            }
            request = SampleRequest(id=str(seed), seed=seed, options=options, **given)
            scheduler.submit(request, inbox.receiver(str(seed)))
        images.append(np.stack([inbox.sample(str(seed)).image for seed in range(3)]).astype(int))
        assert scheduler.close()
    assert np.abs(images[0] - images[1]).max() <= 1, "the last bits of exp and tanh differ"


class Ticks:
    """A device's clock: a timer starts and stops when the device gets there, and knows then."""

    def __init__(self, arrays: TickingArrays) -> None:
        self._arrays = arrays
        self._start = arrays.clock_s
        self._end = 0.0
        self._stopped = False

    def stop(self) -> None:
        self._end, self._stopped = self._arrays.clock_s, True

    def seconds(self) -> float:
        assert self._stopped
        return self._end - self._start


class TickingArrays(StrictArrays):
    clock_s = 0.0

    def timer(self) -> Ticks:  # type: ignore[override]
        return Ticks(self)


class Seen(Observer):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int, float]] = []

    def stepped(self, rows: Sequence[Row], evaluations: int, engine_s: float) -> None:
        self.steps.append((rows[0].made, evaluations, engine_s))


def test_cost_and_metrics_are_fed_by_the_clock_of_the_device() -> None:
    engine, inbox, seen, cost = StrictEngine(), Inbox(), Seen(), CostModel()
    engine.arrays = arrays = TickingArrays()
    run = engine.run

    def slow(inputs: EngineInputs) -> object:
        arrays.clock_s += 10.0 * inputs["x"].shape[0]
        return run(inputs)

    engine.run = slow  # type: ignore[method-assign]
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, cost=cost, observer=seen)
    scheduler.submit(request("a", options=SamplingOptions(steps=3, guidance_scale=2.0)), inbox.receiver("a"))
    inbox.sample("a")
    assert scheduler.close()
    assert seen.steps == [(1, 2, 20.0), (2, 2, 20.0), (3, 2, 20.0)], "made, not enqueued"
    assert cost.step_s(2) == pytest.approx(20.0)


class NoNumbers(TorchArrays):
    """PyTorch's `meta` device: what needs a number, and so would wait on a GPU, raises."""

    ahead = 1

    def to_host(self, array: torch.Tensor) -> Callable[[], np.ndarray]:
        kind = {torch.bool: np.bool_, torch.uint8: np.uint8}[array.dtype]
        return lambda: np.ones(tuple(array.shape), kind)


@pytest.mark.parametrize("stage", ["base", "sr"])
def test_no_part_of_a_step_waits_for_the_device(stage: Stage) -> None:
    config = CONFIG if stage == "base" else UPSAMPLER
    engine, inbox = FakeEngine(config), Inbox()
    engine.arrays = NoNumbers("meta")
    torch.empty(2, device="meta").sort()  # its first operations import for seconds
    kinds = [dataclasses.replace(kind, steps=3) for kind in KINDS]

    def run(inputs: EngineInputs) -> torch.Tensor:
        assert_inputs(config, engine.max_batch, inputs)
        return torch.empty((inputs["x"].shape[0], 6, *inputs["x"].shape[2:]), device="meta")

    engine.run = run  # type: ignore[method-assign]
    scheduler = StepScheduler(engine, DIFFUSION, STAGE_BASE, max_rows=3)  # 5 requests: some rows pause
    for n, kind in enumerate(kinds):
        if stage == "base":
            one = request(str(n), seed=n, options=kind)
        else:
            options = dataclasses.replace(kind, guidance_scale=1.0, consistency=0.5 * (n % 2))
            one = SampleRequest(id=str(n), seed=n, options=options, low_res=np.zeros((3, 8, 8), np.float32))
        scheduler.submit(one, inbox.receiver(str(n)))
    for n, kind in enumerate(kinds):
        assert inbox.sample(str(n)).steps == kind.steps
    assert scheduler.close()
