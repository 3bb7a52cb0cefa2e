"""The cost model finds the line behind noisy measurements, keeps it, and follows a change."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from fake_engine import DIFFUSION, PLAIN, FakeEngine

from id3pm.diffusion.samplers import plan
from id3pm.engines import arrays
from id3pm.engines.inputs import EngineInputs, FloatArray
from id3pm.sampling.cost import FIRST_GUESS_S, CostModel, warm_up


def taught(model: CostModel, steps: int, a: float, b: float, rows: tuple[int, ...] = (1, 4, 9, 16)) -> CostModel:
    random = np.random.Generator(np.random.Philox(3))
    for _ in range(steps):
        count = int(random.choice(rows))
        model.observe(count, (a + b * count) * float(random.uniform(0.9, 1.1)))
    return model


@pytest.mark.parametrize(("a", "b"), [(0.015, 0.0005), (0.001, 0.012), (0.02, 0.0)])
def test_finds_the_cost_of_a_call_and_of_a_row(a: float, b: float) -> None:
    model = taught(CostModel(), 200, a, b)
    for rows in (1, 2, 8, 16, 32):
        assert model.step_s(rows) == pytest.approx(a + b * rows, rel=0.15)


def test_follows_a_machine_that_gets_slower_or_faster() -> None:
    model = taught(CostModel(), 200, 0.01, 0.002)
    taught(model, 150, 0.05, 0.01)
    assert model.step_s(16) == pytest.approx(0.21, rel=0.15)
    taught(model, 150, 0.01, 0.002)
    assert model.step_s(16) == pytest.approx(0.042, rel=0.15)


def test_a_hiccup_changes_little() -> None:
    model = taught(CostModel(), 200, 0.01, 0.002)
    before = model.step_s(8)
    model.observe(9, 30.0)
    assert model.step_s(8) < 1.3 * before


def test_many_steps_of_one_size_do_not_lose_the_line() -> None:
    model = taught(CostModel(), 100, 0.02, 0.001)
    taught(model, 5000, 0.02, 0.001, rows=(16,))
    assert model.step_s(1) == pytest.approx(0.021, rel=0.15)


def test_is_useful_before_anything_was_measured() -> None:
    assert CostModel().step_s(4) == pytest.approx(4 * FIRST_GUESS_S)


def test_service_and_backlog_count_guided_steps_twice() -> None:
    model = CostModel()
    model.observe(1, 0.3)
    model.observe(5, 0.7)  # 0.2 + 0.1 rows
    options = dataclasses.replace(PLAIN, guidance_scale=2.0, guidance_low=20, guidance_high=60)
    steps = plan(DIFFUSION, options, learn_sigma=True)  # 2 of 5 steps are guided
    assert model.service_s(steps) == pytest.approx(3 * 0.3 + 2 * 0.4)
    assert model.service_s(steps, company=4) == pytest.approx(3 * 0.6 + 2 * 1.0)
    assert model.work_s(steps.evaluations, 4) == pytest.approx(7 * 0.6 / 4)


class Clocked(FakeEngine):
    """0.1 s a call and 0.1 s a row, by a clock of its own; the first call takes long."""

    now = 0.0

    def run(self, inputs: EngineInputs) -> FloatArray:
        self.now += 0.1 + 0.1 * len(inputs["x"]) + (5.0 if not self.calls else 0.0)
        return super().run(inputs)


def test_warm_up_gives_a_first_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Clocked(max_batch=8)
    monkeypatch.setattr(arrays, "time", SimpleNamespace(perf_counter=lambda: engine.now))
    model = warm_up(engine, max_rows=16)
    assert engine.calls == [1, 1, 8]
    assert model.step_s(4) == pytest.approx(0.5)


def test_warm_up_of_a_slow_engine_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ticks = FakeEngine(), itertools.count()
    monkeypatch.setattr(arrays, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    model = warm_up(engine, max_rows=16)
    assert engine.calls == [1, 1]
    assert model.step_s(16) == pytest.approx(16.0)


@pytest.mark.parametrize(
    ("a", "b", "least", "most"),
    [
        (0.05, 0.0005, 26, 32),  # a GPU: every further row is nearly free
        (0.002, 0.01, 2, 4),  # a CPU: a row costs what it costs
        (0.0, 0.01, 1, 2),
    ],
)
def test_enough_rows_are_those_that_make_the_engine_efficient(a: float, b: float, least: int, most: int) -> None:
    model = CostModel()
    for rows in (1, 32):
        model.observe(rows, a + b * rows)
    enough = model.enough(32)
    assert least <= enough <= most
    assert enough / model.step_s(enough) >= 0.899 * 32 / model.step_s(32)


def test_a_step_takes_all_rows_until_the_cost_is_known() -> None:
    model = CostModel()
    assert model.enough(32) == 32
    model.observe(4, 0.1)
    assert model.enough(32) == 32
