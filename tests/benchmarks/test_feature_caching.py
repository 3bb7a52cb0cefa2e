from __future__ import annotations

import numpy as np
import pytest
import tiny_engines

from feature_caching import CachedUNet, Setting, settings_of, work
from id3pm.engines.inputs import EngineInputs, input_shapes

UNET = tiny_engines.random_unet(tiny_engines.BASE).requires_grad_(False)


def inputs(seed: int) -> EngineInputs:
    generator = np.random.default_rng(seed)
    shapes = input_shapes(tiny_engines.BASE, 2)
    return {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def plain(given: EngineInputs) -> np.ndarray:
    return CachedUNet(UNET, every=1, levels=1).run(given)


def test_without_caching_it_is_the_network() -> None:
    import torch

    given = inputs(0)
    with torch.inference_mode():
        expected = UNET(**{name: torch.from_numpy(array) for name, array in given.items()}).numpy()
    assert np.array_equal(plain(given), expected)


def test_every_second_call_reuses_the_deep_levels_of_the_one_before() -> None:
    first, second, third = (inputs(seed) for seed in (1, 2, 3))
    engine = CachedUNet(UNET, every=2, levels=1)
    assert np.array_equal(engine.run(first), plain(first))
    reused = engine.run(second)
    assert np.linalg.norm(reused - plain(second)) > 1e-3 * np.linalg.norm(reused)
    assert np.array_equal(engine.run(third), plain(third))
    engine.restart()
    assert np.array_equal(engine.run(second), plain(second))
    assert np.array_equal(engine.run(second), plain(second))  # features of the same input are as good as new


def test_work_is_that_of_the_calls() -> None:
    cached = CachedUNet(UNET, every=3, levels=1)
    whole, shallow = cached.flops(fresh=True), cached.flops(fresh=False)
    assert 0 < shallow < whole
    found = work(UNET, Setting(preset="fast", steps=8, every=3))
    assert found == pytest.approx((3 * whole + 5 * shallow) / (8 * whole))
    assert work(UNET, Setting(preset="fast", steps=8)) == 1.0


def test_caching_competes_with_fewer_steps_of_the_same_work() -> None:
    plain, cached, fewer = settings_of(["balanced"], UNET)[:3]
    assert (plain.every, plain.steps, cached.every, cached.steps, fewer.every) == (1, 25, 2, 25, 1)
    assert fewer.steps == pytest.approx(25 * work(UNET, cached), abs=0.5)
