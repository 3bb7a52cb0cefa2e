from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from id3pm.config import MAX_SEED
from id3pm.diffusion.noise import MAX_DRAW, STAGE_BASE, STAGE_SR, noise
from id3pm.errors import InvalidInputError

GOLDEN = Path(__file__).parents[1] / "golden"
streams = st.tuples(
    st.one_of(st.integers(0, 20), st.integers(0, MAX_SEED)),
    st.sampled_from([STAGE_BASE, STAGE_SR]),
    st.one_of(st.integers(0, 1000), st.integers(0, MAX_DRAW)),
)


def test_the_seed_contract_gives_its_golden_values():
    with np.load(GOLDEN / "diffusion_seeds.npz") as golden:
        assert len(golden) == 7
        for key, expected in golden.items():
            seed, stage, draw = map(int, key.split("/"))
            actual = noise(seed, stage, draw, (3, 4, 8))
            assert actual.dtype == np.float32
            np.testing.assert_array_equal(actual, expected.reshape(3, 4, 8), err_msg=key)


def test_numpys_philox_is_that_of_the_paper():
    # Known answer of Random123 (Salmon et al. 2011) for philox4x64-10, key 0, counter 0. numpy counts before it
    # computes, so counter 0 comes after 2^256 - 1.
    words = np.random.Philox(key=0, counter=2**256 - 1).random_raw(4)
    assert [f"{word:016x}" for word in words] == [
        "16554d9eca36314c",
        "db20fe9d672d0fdc",
        "d7e772cee186176b",
        "7e68b68aec7ba23b",
    ]


@given(streams, st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_shape_only_folds_and_cuts_one_sequence(stream, shape):
    long = noise(*stream, (9**4,))
    np.testing.assert_array_equal(noise(*stream, tuple(shape)).ravel(), long[: np.prod(shape)])


@given(streams, streams)
def test_another_seed_stage_or_draw_is_an_independent_stream(first, second):
    assume(first != second)
    a, b = (noise(*stream, (4096,)) for stream in (first, second))
    assert not np.isin(a[:64], b).all()
    assert abs(np.corrcoef(a, b)[0, 1]) < 7 / np.sqrt(4096)  # 7 standard deviations


@given(streams)
def test_the_numbers_are_standard_normal(stream):
    values = noise(*stream, (50_000,)).astype(np.float64)
    assert abs(values.mean()) < 7 / np.sqrt(50_000)
    assert abs(values.std() - 1) < 7 / np.sqrt(2 * 50_000)
    assert 0.67 < (abs(values) < 1).mean() < 0.695  # 0.6827


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.0, np.float32(2), "1", True, np.True_, None, float("nan"), [1]])
def test_a_bad_seed_is_refused_by_its_value_and_the_rule(seed):
    with pytest.raises(InvalidInputError, match=r"seed=.*between 0 and 2\^63 - 1"):
        noise(seed, STAGE_BASE, 0, (1,))


@pytest.mark.parametrize("seed", [7, np.int64(7), np.uint64(7), np.int32(7), np.array(7)])
def test_every_integer_type_of_one_value_is_one_seed(seed):
    np.testing.assert_array_equal(noise(seed, STAGE_SR, 3, (8,)), noise(7, STAGE_SR, 3, (8,)))


@pytest.mark.parametrize(("stage", "draw"), [(2, 0), (-1, 0), (0, -1), (0, 2**64)])
def test_a_stage_or_draw_that_does_not_exist_is_refused(stage, draw):
    with pytest.raises(ValueError, match="stage=" if draw == 0 else "draw="):
        noise(1, stage, draw, (1,))
