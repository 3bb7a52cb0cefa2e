"""The average of the weights is what its formula says, also across a restart."""

from __future__ import annotations

import pytest
import torch

from id3pm.training.ema import Ema


def test_average_follows_the_recursion() -> None:
    weight = torch.tensor([1.0, 2.0])
    ema = Ema([("w", weight)], rate=0.9)
    expected = weight.clone()
    for step in range(5):
        weight = weight + step
        ema.update([("w", weight)])
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(ema.average["w"], expected)


def test_one_call_for_all_tensors_gives_the_bits_of_one_for_each() -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = ((4, 3, 3, 3), (5,), (2, 7))
    start = [(str(n), torch.randn(shape, generator=rng)) for n, shape in enumerate(shapes)]
    together, alone = (Ema(start, rate=0.99, foreach=foreach) for foreach in (True, False))
    for _ in range(5):
        new = [(str(n), torch.randn(shape, generator=rng)) for n, shape in enumerate(shapes)]
        together.update(new)
        alone.update(new)
    assert all(torch.equal(together.average[name], alone.average[name]) for name in together.average)


def test_average_is_a_copy() -> None:
    weight = torch.zeros(2)
    ema = Ema([("w", weight)])
    weight.add_(1.0)
    assert ema.average["w"].eq(0.0).all()


def test_warm_up_forgets_the_random_start() -> None:
    slow, warm = (Ema([("w", torch.zeros(1))], rate=0.9999, warm_up=flag) for flag in (False, True))
    for _ in range(200):
        slow.update([("w", torch.ones(1))])
        warm.update([("w", torch.ones(1))])
    assert slow.average["w"].item() == pytest.approx(1 - 0.9999**200, rel=1e-3)
    assert warm.average["w"].item() > 0.999


def test_warm_up_ends_at_the_rate() -> None:
    ema = Ema([("w", torch.zeros(1))], rate=0.9, warm_up=True)
    rates = []
    for _ in range(200):
        ema.update([("w", torch.zeros(1))])
        rates.append(ema.current_rate())
    assert rates[0] == pytest.approx(2 / 11) and rates[-1] == 0.9 and rates == sorted(rates)


def test_restart_goes_on_with_the_same_average() -> None:
    straight = Ema([("w", torch.zeros(3))], rate=0.99, warm_up=True)
    weights = [torch.randn(3, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    for weight in weights[:3]:
        straight.update([("w", weight)])
    resumed = Ema([("w", torch.zeros(3))], rate=0.99, warm_up=True)
    resumed.load_state_dict(straight.updates, {"w": straight.average["w"].clone()})
    for weight in weights[3:]:
        straight.update([("w", weight)])
        resumed.update([("w", weight)])
    assert torch.equal(straight.average["w"], resumed.average["w"])
