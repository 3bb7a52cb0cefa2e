"""diffusers' schedulers as live oracles, stepped with the same model outputs and the same noise.

They compute their coefficients in float32, hence the looser tolerances. (Values computed by guided-diffusion itself
are in test_samplers.py.)
"""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.guidance import clip_x0
from id3pm.diffusion.plans import plan_from_schedule
from id3pm.diffusion.rows import columns_beside
from id3pm.diffusion.samplers import gather, update
from id3pm.diffusion.schedule import betas, respaced_schedule
from tests.diffusion.fake_unet import FakeUNet

ROWS, SHAPE = 2, (3, 4, 4)
PERCENTILES = [0.0, 0.9, 0.995]


@pytest.fixture(scope="module")
def schedulers():
    import diffusers  # two seconds, in the process that runs this file alone

    return diffusers


@pytest.fixture(params=["cosine", "linear"])
def config(request):
    return DiffusionConfig(noise_schedule=request.param)


def draw(number):
    return np.random.default_rng(number).standard_normal((ROWS, *SHAPE), dtype=np.float32)


def clipping(percentile):
    """The diffusers settings of `dynamic_threshold`; its threshold of at most 1 is a clamp to [-1, 1]."""
    if percentile == 0:
        return {"thresholding": True, "sample_max_value": 1.0}
    return {"thresholding": True, "dynamic_thresholding_ratio": percentile, "sample_max_value": 1e9}


def compare(config, respacing, options, oracle_step, tolerance):
    """Steps both from the same state; each step starts from the oracle's, so that errors do not add up or cancel."""
    schedule = respaced_schedule(config, respacing)
    steps, model = plan_from_schedule(schedule, options, learn_sigma=True), FakeUNet()
    x, x0 = draw(0), None
    for step in range(len(steps)):
        rows = gather([steps] * ROWS, [step] * ROWS)
        output = model(x, rows.timestep, range(ROWS), np.ones(ROWS))
        noise = draw(step + 1)
        actual, x0 = update(x, output, rows, x0_prev=x0, noise=noise if rows.needs_noise.all() else None)
        timestep = schedule.timesteps[::-1][step]
        x = oracle_step(torch.from_numpy(output), timestep, torch.from_numpy(x), torch.from_numpy(noise)).numpy()
        np.testing.assert_allclose(actual, x, rtol=tolerance, atol=tolerance, err_msg=f"step {step}")


def noisiest_first(config, respacing):
    return list(respaced_schedule(config, respacing).timesteps[::-1])


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("respacing", ["10", "100", "ddim25"])
def test_ddpm_equals_diffusers_learned_range(schedulers, config, respacing, percentile):
    scheduler = schedulers.DDPMScheduler(
        trained_betas=betas(config), variance_type="learned_range", **clipping(percentile)
    )
    scheduler.set_timesteps(timesteps=noisiest_first(config, respacing))

    def step(output, timestep, x, noise):
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: noise):
            return scheduler.step(output, timestep, x).prev_sample

    options = SamplingOptions(guidance_scale=1.0, dynamic_threshold=percentile)
    compare(config, respacing, options, step, tolerance=1e-4)


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_equals_diffusers(schedulers, config, steps, eta, percentile):
    scheduler = schedulers.DDIMScheduler(trained_betas=betas(config), **clipping(percentile))
    scheduler.set_timesteps(steps)  # its "leading" spacing is the DDIM paper's: "ddimN"
    assert scheduler.timesteps.tolist() == noisiest_first(config, f"ddim{steps}")

    def step(output, timestep, x, noise):
        given = {"use_clipped_model_output": True, "variance_noise": noise, "eta": eta}
        return scheduler.step(output[:, :3], timestep, x, **given).prev_sample

    options = SamplingOptions(sampler="ddim", eta=eta, guidance_scale=1.0, dynamic_threshold=percentile)
    compare(config, f"ddim{steps}", options, step, tolerance=1e-4)


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("respacing", ["2", "3", "10", "30", "ddim25"])
def test_dpmpp_2m_equals_diffusers_dpm_solver_multistep(schedulers, config, respacing, percentile):
    scheduler = schedulers.DPMSolverMultistepScheduler(
        trained_betas=betas(config),
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        variance_type="learned_range",
        **clipping(percentile),
    )
    scheduler.set_timesteps(timesteps=noisiest_first(config, respacing))

    def step(output, timestep, x, noise):
        return scheduler.step(output, timestep, x).prev_sample

    options = SamplingOptions(sampler="dpmpp_2m", guidance_scale=1.0, dynamic_threshold=percentile)
    compare(config, respacing, options, step, tolerance=1e-4)


@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.99, 0.995])
def test_dynamic_thresholding_equals_diffusers(schedulers, ratio):
    scheduler = schedulers.DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=1e9)
    x0 = np.concatenate([draw(2)[:1] * factor for factor in (0.2, 0.7, 3.0, 50.0)])
    expected = scheduler._threshold_sample(torch.from_numpy(x0)).numpy()
    steps = plan_from_schedule(
        respaced_schedule(DiffusionConfig(), "3"), SamplingOptions(guidance_scale=1.0), learn_sigma=True
    )
    rows = dataclasses.replace(gather([steps] * 4, [0] * 4), percentile=np.full(4, ratio))
    actual = clip_x0(x0, columns_beside(rows, x0).thresholds)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-7)
