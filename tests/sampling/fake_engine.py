"""An engine without a network, whose calls a test can count, hold back, delay or break; and an inbox for results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.engines.arrays import HOST, Arrays
from id3pm.engines.inputs import EngineInputs, FloatArray, assert_inputs
from id3pm.errors import Id3pmError
from id3pm.sampling.cost import CostModel
from id3pm.sampling.observer import Observer
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.row import Row
from id3pm.sampling.scheduler import StepScheduler

CONFIG = UNetConfig(
    image_size=8, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), identity_dim=4
)
DIFFUSION = DiffusionConfig(diffusion_steps=100)
PLAIN = SamplingOptions(steps=5, guidance_scale=1.0)
POISON = 666.0  # a row whose identity begins with this gets NaN
TIMEOUT_S = 10.0


class FakeEngine:
    """eps and variance as an elementwise function of x, time step and identity.

    Attributes:
        calls: Rows of every call so far.
        seen: First identity element of every row of the latest call.
        error: Raised by the next calls, where set.
        delay_s: Duration of a call.
    """

    def __init__(self, config: UNetConfig = CONFIG, max_batch: int = 64, *, held: bool = False) -> None:
        self.config = config
        self.max_batch = max_batch
        self.arrays: Arrays = HOST
        self.description = "fake"
        self.calls: list[int] = []
        self.seen: list[float] = []
        self.error: Exception | None = None
        self.delay_s = 0.0
        self._allowed = threading.Semaphore(0) if held else None
        self.entered = threading.Semaphore(0)

    def let(self, calls: int) -> None:
        """Allows that many calls of an engine that is held."""
        assert self._allowed is not None
        for _ in range(calls):
            self._allowed.release()

    def run(self, inputs: EngineInputs) -> FloatArray:
        rows = assert_inputs(self.config, self.max_batch, inputs)
        self.seen = inputs["identity"][:, 0].tolist()
        self.calls.append(rows)
        self.entered.release()
        assert self._allowed is None or self._allowed.acquire(timeout=TIMEOUT_S), "the test never let this call go on"
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        mix = inputs["x"] * 0.5 + inputs["identity"].sum(axis=1)[:, None, None, None] * 0.01
        mix = mix + inputs["timesteps"][:, None, None, None] * np.float32(0.001)
        output = np.concatenate([np.tanh(mix), np.sin(mix)], axis=1).astype(np.float32)
        output[inputs["identity"][:, 0] == POISON, :, 3, 3] = np.nan
        return output

    def close(self) -> None:
        """Nothing to free."""


class KnownCost(CostModel):
    """A second per row, whatever is measured: what is due when does not depend on how fast a test runs."""

    def observe(self, rows: int, seconds: float, waited_s: float = 0.0) -> None:
        """Learns nothing."""

    def step_s(self, rows: float) -> float:
        return float(rows)


class LastImages(Observer):
    """Every row's latest x0: after the last step the image, before it is rounded to 8 bits."""

    def __init__(self) -> None:
        self.images: dict[str, FloatArray] = {}

    def stepped(self, rows: Sequence[Row], evaluations: int, engine_s: float) -> None:
        self.images |= {row.request.id: row.x0 for row in rows if row.x0 is not None}


def last_image(scheduler: StepScheduler, name: str) -> FloatArray:
    assert isinstance(scheduler._observer, LastImages)
    return scheduler._observer.images[name]


class Inbox:
    """Collects the outcomes of requests, in the order they come."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self._outcomes: dict[str, list[Sample | Id3pmError]] = {}
        self._changed = threading.Condition()

    def receiver(self, name: str) -> Callable[[Sample | Id3pmError], None]:
        def on_done(outcome: Sample | Id3pmError) -> None:
            with self._changed:
                self.order.append(name)
                self._outcomes.setdefault(name, []).append(outcome)
                self._changed.notify_all()

        return on_done

    def outcome(self, name: str) -> Sample | Id3pmError:
        """The one outcome of a request; waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self._outcomes, TIMEOUT_S), f"{name} was never answered"
            (outcome,) = self._outcomes[name]
            return outcome

    def sample(self, name: str) -> Sample:
        outcome = self.outcome(name)
        assert isinstance(outcome, Sample), outcome
        return outcome

    def error(self, name: str) -> Id3pmError:
        outcome = self.outcome(name)
        assert isinstance(outcome, Id3pmError)
        return outcome


def request(
    name: str,
    *,
    seed: int = 0,
    options: SamplingOptions = PLAIN,
    identity: float = 1.0,
    deadline: float | None = None,
    priority: int = 1,
) -> SampleRequest:
    """A request for `FakeEngine`; all elements of the ID vector are the same number."""
    return SampleRequest(
        id=name,
        seed=seed,
        options=options,
        identity=np.full(4, identity, dtype=np.float32),
        deadline=deadline,
        priority=priority,
    )
