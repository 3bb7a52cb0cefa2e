import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from id3pm.config import DiffusionConfig
from id3pm.diffusion.schedule import NOISIEST_LOGSNR, betas, respaced_schedule, space_logsnr, space_timesteps
from id3pm.errors import ConfigError, InvalidOptionError

GOLDEN = Path(__file__).parents[1] / "golden"
TIMESTEPS = json.loads((GOLDEN / "diffusion_timesteps.json").read_text())


def test_every_schedule_array_equals_guided_diffusions():
    with np.load(GOLDEN / "diffusion_schedules.npz") as golden:
        assert len(golden) == 8 * 11
        for key, expected in golden.items():
            noise_schedule, diffusion_steps, respacing, array = key.split("/")
            config = DiffusionConfig(diffusion_steps=int(diffusion_steps), noise_schedule=noise_schedule)
            actual = getattr(respaced_schedule(config, respacing), array)
            assert actual.dtype == np.float64
            np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=0, err_msg=key)


@pytest.mark.parametrize(("diffusion_steps", "respacing", "expected"), TIMESTEPS, ids=lambda value: str(value)[:24])
def test_respacing_keeps_and_refuses_what_guided_diffusion_does(diffusion_steps, respacing, expected):
    if expected is None:
        with pytest.raises(InvalidOptionError, match="respacing="):
            space_timesteps(diffusion_steps, respacing)
    else:
        assert space_timesteps(diffusion_steps, respacing) == tuple(expected)


@given(st.integers(1, 1200), st.data())
def test_respacing_keeps_the_right_number_in_every_section(diffusion_steps, data):
    sections = data.draw(st.integers(1, min(diffusion_steps, 6)))
    shortest, longer = divmod(diffusion_steps, sections)
    sizes = [shortest + (i < longer) for i in range(sections)]
    counts = [data.draw(st.integers(0 if i else 1, size)) for i, size in enumerate(sizes)]
    timesteps = space_timesteps(diffusion_steps, counts)
    assert list(timesteps) == sorted(set(timesteps))
    start = 0
    for size, count in zip(sizes, counts, strict=True):
        kept = [t for t in timesteps if start <= t < start + size]
        assert len(kept) == count
        if count:
            assert kept[0] == start
        if count > 1:
            assert kept[-1] == start + size - 1
        start += size


def test_a_number_a_sequence_and_text_mean_the_same_sections():
    assert space_timesteps(1000, 25) == space_timesteps(1000, "25") == space_timesteps(1000, [25])
    assert space_timesteps(300, "10,15,20") == space_timesteps(300, (10, 15, 20))
    config = DiffusionConfig()
    assert respaced_schedule(config, [25, 5]).timesteps == respaced_schedule(config, "25,5").timesteps


@pytest.mark.parametrize("respacing", [0, -1, [], [5, -5, 9], "0", "0,0", "ddim0", "ddim-4"])
def test_a_respacing_that_keeps_nothing_or_less_is_refused(respacing):
    with pytest.raises(InvalidOptionError, match="respacing="):
        space_timesteps(1000, respacing)


def test_a_refused_respacing_says_what_was_wanted_and_what_is_there():
    with pytest.raises(InvalidOptionError, match=r"'2,50,3' wants 50 steps from a section of 33.*ask for 33 steps"):
        space_timesteps(100, "2,50,3")


def test_cosine_alphas_cumprod_follow_their_closed_form():
    def squared_cosine(fraction):
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = respaced_schedule(DiffusionConfig(), 1000)
    expected = [squared_cosine((i + 1) / 1000) / squared_cosine(0) for i in range(1000)]
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], expected[:-1], rtol=1e-9)
    assert betas(DiffusionConfig())[-1] == 0.999  # capped: the closed form ends at 0


@pytest.mark.parametrize("diffusion_steps", [21, 100, 1000, 4000])
def test_linear_betas_are_an_arithmetic_sequence(diffusion_steps):
    values = betas(DiffusionConfig(diffusion_steps=diffusion_steps, noise_schedule="linear"))
    np.testing.assert_allclose(values[[0, -1]] * diffusion_steps, [0.1, 20.0], rtol=1e-12)
    np.testing.assert_allclose(np.diff(values), (values[-1] - values[0]) / (diffusion_steps - 1), rtol=1e-8)


@pytest.mark.parametrize("diffusion_steps", [1, 20])
def test_a_linear_schedule_whose_betas_reach_one_is_refused(diffusion_steps):
    with pytest.raises(ConfigError, match=f"diffusion_steps={diffusion_steps} .*more than 20"):
        betas(DiffusionConfig(diffusion_steps=diffusion_steps, noise_schedule="linear"))


@given(st.sampled_from(["cosine", "linear"]), st.integers(1, 1000))
def test_a_respaced_process_has_the_training_processs_alphas_cumprod(noise_schedule, steps):
    config = DiffusionConfig(noise_schedule=noise_schedule)
    schedule, full = respaced_schedule(config, steps), np.cumprod(1 - betas(config))
    assert len(schedule) == steps
    # atol: through betas near 1, abar near 0 keeps absolute precision only, in the original as well.
    np.testing.assert_allclose(schedule.alphas_cumprod, full[list(schedule.timesteps)], rtol=1e-9, atol=1e-15)


def test_timesteps_are_rescaled_to_a_thousand_only_where_the_model_was_trained_so():
    plain = respaced_schedule(DiffusionConfig(diffusion_steps=400), 5)
    rescaled = respaced_schedule(DiffusionConfig(diffusion_steps=400, rescale_timesteps=True), 5)
    assert plain.timesteps == rescaled.timesteps == (0, 100, 200, 299, 399)
    assert plain.model_timesteps.tolist() == [0, 100, 200, 299, 399]
    assert rescaled.model_timesteps.tolist() == [0, 250, 500, 747.5, 997.5]
    assert rescaled.model_timesteps.dtype == np.float32


def test_a_process_of_one_step_has_finite_logarithms():
    schedule = respaced_schedule(DiffusionConfig(), 1)
    assert schedule.timesteps == (0,)
    assert np.isfinite(schedule.posterior_log_variance_clipped).all()


def test_cached_schedules_cannot_be_changed():
    schedule = respaced_schedule(DiffusionConfig(), 10)
    assert schedule is respaced_schedule(DiffusionConfig(), 10)
    for array in (schedule.betas, schedule.alphas_cumprod, schedule.posterior_variance, schedule.model_timesteps):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@given(st.sampled_from(["cosine", "linear"]), st.integers(21, 1200), st.data())
def test_logsnr_spacing_keeps_as_many_different_steps_as_asked_for(noise_schedule, diffusion_steps, data):
    count = data.draw(st.integers(1, diffusion_steps))
    timesteps = space_logsnr(DiffusionConfig(diffusion_steps=diffusion_steps, noise_schedule=noise_schedule), count)
    assert len(timesteps) == count
    assert all(later > earlier for earlier, later in zip(timesteps, timesteps[1:], strict=False))
    assert 0 <= timesteps[0] and timesteps[-1] < diffusion_steps


@pytest.mark.parametrize("noise_schedule", ["cosine", "linear"])
def test_logsnr_spacing_divides_the_log_snr_into_equal_parts(noise_schedule):
    schedule = respaced_schedule(DiffusionConfig(noise_schedule=noise_schedule), 9, "logsnr")
    log_snr = np.log(schedule.alphas_cumprod / (1 - schedule.alphas_cumprod))
    np.testing.assert_allclose(log_snr[-1], NOISIEST_LOGSNR, atol=0.05)
    gaps = np.diff(log_snr[3:])  # at the clean end the training steps themselves lie too far apart
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=0.03)
    assert schedule.timesteps[0] == 0


def test_logsnr_spacing_takes_a_number():
    with pytest.raises(InvalidOptionError, match=r"respacing='ddim50': logsnr spacing takes a number of steps"):
        respaced_schedule(DiffusionConfig(), "ddim50", "logsnr")
