import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.coefficients import gather
from id3pm.diffusion.guidance import clip_x0, guide, make_consistent, null_attributes, null_identity
from id3pm.diffusion.plans import plan
from id3pm.diffusion.rows import columns_beside

percentiles = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.995, 1.0]), st.floats(1e-6, 1.0))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def coefficients(x, **values):
    """Of the first step of a plan, but for these values, beside x."""
    steps = plan(DiffusionConfig(), SamplingOptions(sampler="ddpm", steps=3, guidance_scale=1.0), False)
    rows = gather([steps] * len(x), [0] * len(x))
    return columns_beside(dataclasses.replace(rows, **values), x)


def guided(cond, uncond, scale, rows):
    of = coefficients(cond, guidance_scale=scale, guided=np.isin(np.arange(len(cond)), rows))
    return guide(cond, uncond, of.guidance_scale, of.guided)


def clipped_x0(x0, fractions):
    return clip_x0(x0, coefficients(x0, percentile=fractions).thresholds)


def consistent(x0, low, share):
    of = coefficients(x0, consistency=share)
    agreed = make_consistent(of.consistent.take(x0), of.consistent.take(low), of.consistency)
    return of.consistent.put(x0, agreed)


def test_guidance_is_the_classifier_free_formula_in_the_guided_rows_alone():
    cond, uncond = normal(0, 4, 3, 5, 5), normal(1, 2, 3, 5, 5)
    scale = np.array([2.0, 9.0, 7.5, 9.0], dtype=np.float32)
    made = guided(cond, uncond, scale, np.array([0, 2]))
    np.testing.assert_allclose(made[0], 2.0 * cond[0] - 1.0 * uncond[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made[2], 7.5 * cond[2] - 6.5 * uncond[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made[[1, 3]], cond[[1, 3]])


def test_guidance_scale_zero_is_the_unconditional_model():
    cond, uncond = normal(0, 1, 3, 4, 4), normal(1, 1, 3, 4, 4)
    np.testing.assert_array_equal(guided(cond, uncond, np.zeros(1, np.float32), np.array([0])), uncond)


def test_no_guided_rows_need_no_unconditional_output():
    cond = normal(0, 2, 3, 4, 4)
    assert guided(cond, None, np.full(2, 5, np.float32), np.array([], dtype=int)) is cond


def test_guidance_leaves_its_inputs_as_they_were():
    cond, uncond = normal(0, 2, 3, 4, 4), normal(1, 1, 3, 4, 4)
    before = cond.copy(), uncond.copy()
    guided(cond, uncond, np.full(2, 3, np.float32), np.array([1]))
    np.testing.assert_array_equal(cond, before[0])
    np.testing.assert_array_equal(uncond, before[1])


@pytest.mark.parametrize("uncond_rows", [None, 1, 3])
def test_unconditional_rows_that_do_not_match_the_guided_ones_are_refused(uncond_rows):
    uncond = None if uncond_rows is None else normal(1, uncond_rows, 3, 4, 4)
    with pytest.raises(ValueError, match="for 2 guided rows"):
        guided(normal(0, 3, 3, 4, 4), uncond, np.full(3, 2, np.float32), np.array([0, 2]))


@given(
    st.lists(percentiles, min_size=1, max_size=5),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.floats(0.1, 30),
    st.integers(0, 2**32),
)
def test_dynamic_thresholding_is_imagens_formula_with_numpys_quantile(fractions, shape, spread, seed):
    x0 = normal(seed, len(fractions), *shape) * np.float32(spread)
    clipped = clipped_x0(x0, np.array(fractions))
    assert clipped.dtype == np.float32
    for row, fraction, actual in zip(x0, fractions, clipped, strict=True):
        s = max(np.quantile(abs(row).astype(np.float64), fraction), 1.0) if fraction else 1.0
        np.testing.assert_allclose(actual, row.astype(np.float64).clip(-s, s) / s, rtol=1e-5, atol=1e-7)
    on_torch = clipped_x0(torch.from_numpy(x0), np.array(fractions))
    assert on_torch.dtype == torch.float32
    np.testing.assert_array_equal(on_torch.numpy(), clipped)


def test_percentile_zero_clamps_and_percentile_one_divides_by_the_largest():
    x0 = np.array([-4.0, -0.5, 0.25, 2.0], dtype=np.float32).reshape(1, 1, 2, 2).repeat(2, axis=0)
    clamped, divided = clipped_x0(x0, np.array([0.0, 1.0])).reshape(2, 4).tolist()
    assert clamped == [-1.0, -0.5, 0.25, 1.0]
    assert divided == [-1.0, -0.125, 0.0625, 0.5]


@given(st.integers(0, 4))
def test_a_row_of_nan_stays_nan_and_harms_no_other(bad):
    fractions = np.array([0.0, 0.99, 0.5, 0.0, 1.0])
    x0 = normal(3, 5, 3, 6, 6) * 4
    expected = clipped_x0(x0, fractions)
    x0[bad] = np.nan
    clipped = clipped_x0(x0, fractions)
    others = np.arange(5) != bad
    np.testing.assert_array_equal(clipped[others], expected[others])
    assert np.isnan(clipped[bad]).all()


def test_null_vectors_are_zeros_for_identities_and_minus_ones_for_attributes():
    assert null_identity(2, 4).tolist() == [[0, 0, 0, 0]] * 2
    assert null_attributes(2, 3).tolist() == [[-1, -1, -1]] * 2
    assert null_identity(2, 4).dtype == null_attributes(2, 3).dtype == np.float32


def test_a_consistent_image_reduces_to_its_small_one_and_keeps_its_details():
    x0, low = normal(0, 3, 3, 12, 8), normal(1, 3, 3, 3, 2)
    share = np.array([1.0, 0.0, 0.25], dtype=np.float32)
    moved = consistent(x0, low, share)
    assert moved.dtype == np.float32
    reduced = moved.reshape(3, 3, 3, 4, 2, 4).mean(axis=(3, 5))
    before = x0.reshape(3, 3, 3, 4, 2, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(reduced[0], low[0], atol=1e-6)
    np.testing.assert_array_equal(moved[1], x0[1])
    np.testing.assert_allclose(reduced[2], 0.75 * before[2] + 0.25 * low[2], atol=1e-6)
    block = np.s_[0, 0, 4:8, 0:4]
    np.testing.assert_allclose(moved[block] - moved[block].mean(), x0[block] - x0[block].mean(), atol=1e-6)


def test_consistency_is_the_same_on_torch_and_in_any_batch():
    x0, low = normal(0, 5, 3, 16, 16), normal(1, 5, 3, 4, 4)
    share = np.linspace(0.2, 1.0, 5, dtype=np.float32)
    together = consistent(x0, low, share)
    torchs = consistent(torch.from_numpy(x0), torch.from_numpy(low), share)
    np.testing.assert_allclose(torchs.numpy(), together, atol=1e-6)
    for i in range(5):
        assert consistent(x0[i : i + 1], low[i : i + 1], share[i : i + 1])[0].tobytes() == together[i].tobytes()
