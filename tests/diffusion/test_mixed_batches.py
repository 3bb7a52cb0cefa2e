"""No row depends on its neighbours: not on their number, order, options or values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, noise
from id3pm.diffusion.samplers import gather, plan, sample, update
from tests.diffusion.fake_unet import FakeUNet

CONFIG = DiffusionConfig()
# Odd sizes leave every SIMD loop a tail, and rows that start unaligned.
shapes = st.sampled_from([(3, 4, 4), (3, 5, 7), (3, 8, 8), (1, 3, 1)])


@st.composite
def sampling_options(draw):
    sampler = draw(st.sampled_from(["ddpm", "ddim", "dpmpp_2m"]))
    return SamplingOptions(
        sampler=sampler,
        steps=draw(st.integers(1, 6)),
        guidance_scale=draw(st.sampled_from([1.0, 2.0, 10.0, 7.3])),
        guidance_low=draw(st.sampled_from([0, 300])),
        guidance_high=draw(st.sampled_from([600, 1_000_000])),
        dynamic_threshold=draw(st.sampled_from([0.0, 0.99, 0.7])),
        eta=draw(st.sampled_from([0.0, 0.6, 1.0])) if sampler == "ddim" else 0.0,
    )


requests = st.lists(st.tuples(sampling_options(), st.integers(0, 3)), min_size=1, max_size=7)


def generate(requested, shape, learn_sigma=True, as_array=np.asarray):
    x_start = as_array(np.stack([noise(seed, STAGE_BASE, 0, shape) for _, seed in requested]))
    plans = [plan(CONFIG, options, learn_sigma) for options, _ in requested]
    model = FakeUNet(learn_sigma)
    return sample(model, x_start, plans, lambda row, draw: as_array(noise(requested[row][1], STAGE_BASE, draw, shape)))


@given(requests, shapes, st.booleans())
def test_same_seed_same_image_in_any_batch(requested, shape, learn_sigma):
    together = generate(requested, shape, learn_sigma)
    assert together.dtype == np.float32
    for request, image in zip(requested, together, strict=True):
        assert generate([request], shape, learn_sigma)[0].tobytes() == image.tobytes()
    backwards = generate(requested[::-1], shape, learn_sigma)
    assert backwards[::-1].tobytes() == together.tobytes()


@settings(max_examples=25)
@given(requests, shapes)
def test_same_seed_same_image_in_any_batch_on_torch(requested, shape):
    together = generate(requested, shape, as_array=torch.from_numpy)
    for request, image in zip(requested, together, strict=True):
        alone = generate([request], shape, as_array=torch.from_numpy)[0]
        assert alone.numpy().tobytes() == image.numpy().tobytes()


@settings(max_examples=25)
@given(requests, shapes)
def test_torch_and_numpy_agree(requested, shape):
    on_numpy, on_torch = generate(requested, shape), generate(requested, shape, as_array=torch.from_numpy)
    assert on_torch.dtype == torch.float32
    np.testing.assert_allclose(on_torch.numpy(), on_numpy, rtol=1e-4, atol=1e-5)


@given(requests.filter(lambda requested: len(requested) > 1), shapes, st.randoms(use_true_random=False))
def test_a_neighbour_of_nan_or_infinity_changes_no_other_row(requested, shape, random):
    plans = [plan(CONFIG, options, True) for options, _ in requested]
    rows = gather(plans, [random.randrange(len(row_plan)) for row_plan in plans])
    count, bad = len(requested), random.randrange(len(requested))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *shape), dtype=np.float32)
    output = rng.standard_normal((count, 2 * shape[0], *shape[1:]), dtype=np.float32)
    # Here x_next is -0.0 until something is added: a neighbour's noise or x0 must not come to this row as 0.0.
    zeros = rng.integers(0, 2, x.shape, dtype=bool)
    x[zeros] = -0.0
    output[:, : shape[0]][zeros] = 0.0
    x0_prev = rng.standard_normal((count, *shape), dtype=np.float32)
    draws = rng.standard_normal((count, *shape), dtype=np.float32)

    def run(chosen):
        kept = gather(
            [plans[row] for row in chosen], [list(plans[row].timestep).index(rows.timestep[row]) for row in chosen]
        )
        guided, noisy = chosen[kept.guided_rows], chosen[kept.noise_rows]
        with np.errstate(invalid="ignore", over="ignore"):
            return update(
                x[chosen],
                output[chosen],
                kept,
                unconditional=-output[guided] if len(guided) else None,
                x0_prev=x0_prev[chosen] if len(kept.multistep_rows) else None,
                noise=draws[noisy] if len(noisy) else None,
            )

    others = np.flatnonzero(np.arange(count) != bad)
    expected = run(others)
    for poison in (np.nan, np.inf):
        for array in (x, output, x0_prev, draws):
            array[bad] = poison
        for actual, alone in zip(run(np.arange(count)), expected, strict=True):
            assert actual[others].tobytes() == alone.tobytes()


@pytest.mark.parametrize("image_size", [64])
def test_rows_of_real_size_are_bit_identical_too(image_size):
    requested = [
        (SamplingOptions(steps=3), 5),
        (SamplingOptions(steps=2, guidance_scale=1.0, dynamic_threshold=0.0), 6),
        (SamplingOptions(steps=4, sampler="dpmpp_2m"), 5),
        (SamplingOptions(steps=3, sampler="ddim", eta=0.5, guidance_low=400), 7),
    ]
    shape = (3, image_size, image_size)
    for as_array in (np.asarray, torch.from_numpy):
        together = np.asarray(generate(requested, shape, as_array=as_array))
        for request, image in zip(requested, together, strict=True):
            assert np.asarray(generate([request], shape, as_array=as_array))[0].tobytes() == image.tobytes()
