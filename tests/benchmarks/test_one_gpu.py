"""The model of two stages on one GPU, where its result can be worked out by hand."""

from __future__ import annotations

import pytest

from one_gpu import Gpu, Layout, Simulation, Stage, capacity, compare, h100

FULL = Stage(idle_ms=0.0, busy_ms=10.0, steps=2, evaluations=1, max_batch=1)
HALF = Stage(idle_ms=5.0, busy_ms=5.0, steps=2, evaluations=1, max_batch=1)


@pytest.mark.parametrize("layout", ["processes", "mps", "one stream"])
def test_a_lone_request_takes_its_steps_in_any_layout(layout: Layout) -> None:
    assert Simulation(Gpu(layout), (FULL, HALF), [3.0]).run().latencies == [pytest.approx(40.0)]


def test_two_steps_that_fill_the_gpu_share_it_and_switches_cost() -> None:
    arrivals = [0.0, 20.0]  # the second is at 64 px while the first is at 256 px, for 20 ms each alone
    shared = Simulation(Gpu("mps"), (FULL, FULL), arrivals).run().latencies
    assert shared == [pytest.approx(60.0), pytest.approx(60.0)]
    sliced = Simulation(Gpu("processes", slice_ms=2.0, switch_ms=0.5), (FULL, FULL), arrivals).run().latencies
    assert sliced == [pytest.approx(20.0 + 50.0), pytest.approx(50.0 + 20.0)]


def test_steps_that_leave_half_of_the_gpu_idle_run_beside_each_other_at_full_speed() -> None:
    assert Simulation(Gpu("mps"), (HALF, HALF), [0.0, 20.0]).run().latencies == [pytest.approx(40.0)] * 2
    turns = Simulation(Gpu("one stream"), (HALF, HALF), [0.0, 20.0]).run().latencies
    assert min(turns) > 40.0


def test_exact_buckets_cost_a_lone_image_the_largest_batch() -> None:
    base, sr = h100(2.0, 16, exact=True)
    assert base.step(1)[0] == base.step(8)[0] == pytest.approx(17.0) and sr.step(1)[0] == pytest.approx(50.0)
    assert h100(2.0, 16, exact=False)[1].step(1)[0] == pytest.approx(5.0)


def test_layouts_are_compared_at_the_same_arrivals() -> None:
    assert [line.split(" | ")[3] for line in compare(2.0, 0.2, 16, exact=False)] == ["processes", "mps", "one stream"]
    stages = h100(2.0, 16, exact=True)
    assert capacity(Gpu("processes"), stages) < capacity(Gpu("mps"), stages)
