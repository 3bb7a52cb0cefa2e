import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.coefficients import Coefficients
from id3pm.diffusion.plans import plan_from_schedule
from id3pm.diffusion.samplers import gather, plan, sample, update
from id3pm.diffusion.schedule import respaced_schedule
from id3pm.errors import ConfigError, InvalidOptionError
from tests.diffusion.fake_unet import FakeUNet
from tests.golden.diffusion_cases import ROWS, TRAJECTORIES, Case, case_noise, kept_states

GOLDEN = Path(__file__).parents[1] / "golden"
COSINE = DiffusionConfig()
PLAIN = SamplingOptions(steps=6, guidance_scale=1.0, dynamic_threshold=0.0)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def case_plan(case: Case):
    config = DiffusionConfig(
        diffusion_steps=case.diffusion_steps,
        noise_schedule=case.noise_schedule,
        rescale_timesteps=case.rescale_timesteps,
    )
    options = SamplingOptions(
        sampler=case.sampler,
        steps=int(case.steps) if case.steps.isdigit() else 1,
        guidance_scale=case.guidance_scale,
        guidance_low=case.guidance_low,
        guidance_high=case.guidance_high,
        dynamic_threshold=case.percentile,
        eta=case.eta,
    )
    if case.steps.isdigit():
        return plan(config, options, case.learn_sigma)
    return plan_from_schedule(respaced_schedule(config, case.steps), options, case.learn_sigma)


def states(case_name: str, as_array):
    """Every state of one golden case's trajectory: the loop over each shorter and shorter rest is the loop itself."""
    case = TRAJECTORIES[case_name]
    steps, model = case_plan(case), FakeUNet(case.learn_sigma)
    draws = as_array(case_noise(case_name, len(steps) + 1))
    x, x0 = draws[0], None
    for step in range(len(steps)):
        rows = gather([steps] * ROWS, [step] * ROWS)
        cond = model(x, rows.timestep, range(ROWS), np.ones(ROWS))
        uncond = model(x, rows.timestep, range(ROWS), np.zeros(ROWS)) if rows.guided.any() else None
        noise = draws[step + 1] if rows.needs_noise.any() else None
        x, x0 = update(x, cond, rows, unconditional=uncond, x0_prev=x0, noise=noise)
        yield np.asarray(x)


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("case_name", TRAJECTORIES)
def test_trajectories_equal_guided_diffusions(case_name, as_array):
    with np.load(GOLDEN / "diffusion_trajectories.npz") as golden:
        expected = golden[case_name]
    trajectory = list(states(case_name, as_array))
    actual = np.stack([trajectory[i] for i in kept_states(len(trajectory))])
    assert actual.dtype == np.float32
    errors = abs(actual - expected).max(axis=(1, 2, 3, 4)) / abs(expected).max(axis=(1, 2, 3, 4))
    assert errors.max() <= 1e-5


@pytest.mark.parametrize("case_name", ["ddpm_guided_paper_25", "ddim_guided_thresholded_25", "ddpm_cosine_250"])
def test_the_reference_loop_ends_where_guided_diffusion_does(case_name):
    case = TRAJECTORIES[case_name]
    steps = case_plan(case)
    draws = case_noise(case_name, len(steps) + 1)
    images = sample(FakeUNet(), draws[0], [steps] * ROWS, lambda row, draw: draws[draw, row])
    with np.load(GOLDEN / "diffusion_trajectories.npz") as golden:
        np.testing.assert_allclose(images, golden[case_name][-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_every_sampler_ends_at_its_last_x0_without_noise(sampler, learn_sigma):
    for steps in (1, 2, 3, 17):
        eta = 1.0 if sampler == "ddim" else 0.0
        row_plan = plan(COSINE, SamplingOptions(sampler=sampler, steps=steps, eta=eta), learn_sigma)
        assert len(row_plan) == steps
        last = (row_plan.c_x[-1], row_plan.c_x0[-1], row_plan.c_prev[-1], row_plan.std[-1])
        np.testing.assert_allclose(last, (0, 1, 0, 0), atol=1e-7)
        assert not row_plan.needs_noise[-1]
        assert np.isfinite([getattr(row_plan, field.name) for field in dataclasses.fields(Coefficients)]).all()


def test_only_ddpm_and_ddim_with_eta_need_noise():
    needs = {
        (sampler, eta): plan(COSINE, SamplingOptions(sampler=sampler, steps=5, eta=eta), True).needs_noise.tolist()
        for sampler, eta in [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("dpmpp_2m", 0.0)]
    }
    always, never = [True] * 4 + [False], [False] * 5
    assert list(needs.values()) == [always, never, always, never]


def test_a_plan_runs_from_noisy_to_clean_and_the_unet_gets_training_timesteps():
    assert plan(COSINE, SamplingOptions(steps=5), True).timestep.tolist() == [999, 749, 500, 250, 0]
    rescaled = DiffusionConfig(diffusion_steps=400, rescale_timesteps=True)
    assert plan(rescaled, SamplingOptions(steps=5), True).timestep.tolist() == [997.5, 747.5, 500, 250, 0]


def test_steps_are_guided_in_the_closed_interval_of_training_timesteps():
    interval = {"guidance_scale": 3.0, "guidance_low": 250, "guidance_high": 749}
    row_plan = plan(COSINE, SamplingOptions(steps=5, **interval), True)
    assert row_plan.guided.tolist() == [False, True, True, True, False]
    assert row_plan.evaluations == 8
    rescaled = DiffusionConfig(diffusion_steps=400, rescale_timesteps=True)
    low_high = {"guidance_low": 100, "guidance_high": 299}  # t, not t * 1000 / T
    assert plan(rescaled, SamplingOptions(steps=5, **low_high), True).guided.tolist() == row_plan.guided.tolist()


def test_guidance_scale_one_evaluates_the_unet_once_per_step():
    assert not plan(COSINE, PLAIN, True).guided.any()
    assert plan(COSINE, SamplingOptions(steps=6, guidance_scale=1.1), True).guided.all()


def test_the_loop_evaluates_exactly_the_rows_that_the_plans_count():
    options = [
        PLAIN,
        SamplingOptions(steps=3),
        SamplingOptions(steps=9, guidance_low=100, guidance_high=600, sampler="dpmpp_2m"),
    ]
    plans, model = [plan(COSINE, option, True) for option in options], FakeUNet()
    sample(model, normal(0, 3, 3, 4, 4), plans, lambda row, draw: normal([row, draw], 3, 4, 4))
    assert model.evaluations == sum(row_plan.evaluations for row_plan in plans) == 6 + 6 + 9 + 4


def test_the_loop_asks_for_the_noise_of_each_step_by_its_draw_number():
    options = [PLAIN, SamplingOptions(steps=4, sampler="ddim", eta=1.0), SamplingOptions(steps=5, sampler="ddim")]
    asked = []

    def noise_fn(row, draw):
        asked.append((row, draw))
        return normal([row, draw], 3, 4, 4)

    sample(FakeUNet(), normal(0, 3, 3, 4, 4), [plan(COSINE, option, True) for option in options], noise_fn)
    assert sorted(asked) == [(0, draw) for draw in range(1, 6)] + [(1, draw) for draw in range(1, 4)]


def test_more_steps_than_the_model_was_trained_with_are_refused():
    with pytest.raises(InvalidOptionError, match="steps=101: this model has 100 training steps"):
        plan(DiffusionConfig(diffusion_steps=100), SamplingOptions(steps=101), True)


def test_a_process_without_valid_betas_is_refused():
    with pytest.raises(ConfigError, match="diffusion_steps=10"):
        plan(DiffusionConfig(diffusion_steps=10, noise_schedule="linear"), SamplingOptions(steps=5), True)


def test_a_cached_plan_cannot_be_changed():
    process = DiffusionConfig(data_mean=(0.1, 0.2, 0.3))
    row_plan = plan(process, PLAIN, True)
    assert row_plan is plan(process, SamplingOptions(**vars(PLAIN)), True)
    arrays = [getattr(row_plan, field.name) for field in dataclasses.fields(Coefficients)]
    for array in [*arrays, row_plan.start.mean, *row_plan.row(0)]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_update_leaves_its_inputs_as_they_were():
    rows = gather([plan(COSINE, SamplingOptions(steps=6, sampler=name), True) for name in ("ddpm", "dpmpp_2m")], [2, 3])
    arrays = [normal(i, 2, channels, 4, 4) for i, channels in enumerate((3, 6, 6, 3))] + [normal(9, 1, 3, 4, 4)]
    before = [array.copy() for array in arrays]
    x, output, unconditional, x0_prev, noise = arrays
    update(x, output, rows, unconditional=unconditional, x0_prev=x0_prev, noise=noise)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        (SamplingOptions(steps=6), {"noise": 1}, "0 unconditional rows for 1 guided rows"),
        (PLAIN, {}, "0 rows of noise for 1 noisy rows"),
        (PLAIN, {"noise": 2}, "2 rows of noise for 1 noisy rows"),
        (SamplingOptions(steps=6, sampler="dpmpp_2m", guidance_scale=1.0), {}, r"rows \[0\] use the previous"),
        (SamplingOptions(steps=6, sampler="ddim", guidance_scale=1.0), {"noise": 1}, "1 rows of noise for 0 noisy"),
    ],
)
def test_inputs_that_do_not_match_the_rows_are_refused(options, inputs, message):
    rows = gather([plan(COSINE, options, True)], [2])
    arrays = {name: normal(1, count, 3, 4, 4) for name, count in inputs.items()}
    with pytest.raises(ValueError, match=message):
        update(normal(0, 1, 3, 4, 4), normal(2, 1, 6, 4, 4), rows, **arrays)


def test_a_learned_variance_needs_variance_channels():
    rows = gather([plan(COSINE, PLAIN, True)], [2])
    x = normal(0, 1, 3, 4, 4)
    with pytest.raises(ValueError, match="3 channels: learned variance needs 6"):
        update(x, x, rows, noise=x)


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_sampler_begins_at_the_mean_colour_of_the_data(as_array):
    mean, options = (-0.5, 0.0, 0.25), SamplingOptions(sampler="ddim", steps=4, spacing="logsnr", guidance_scale=1.0)
    plain = plan(COSINE, options, False)
    coloured = plan(dataclasses.replace(COSINE, data_mean=mean), options, False)
    noise, begun = as_array(normal(0, 2, 3, 4, 4)), []

    def model(x, timesteps, rows, conditional):
        begun.append(np.asarray(x).copy())
        return 0.5 * x

    image = sample(model, noise, [coloured, plain], lambda row, draw: as_array(normal(draw, 3, 4, 4)))
    abar = np.exp(-6.0) / (1 + np.exp(-6.0))  # logsnr spacing begins at log SNR -6
    shift = begun[0] - np.asarray(noise)
    np.testing.assert_allclose(
        shift[0], np.sqrt(abar) * np.broadcast_to(np.reshape(mean, (3, 1, 1)), (3, 4, 4)), rtol=0.02
    )
    assert not shift[1].any() and not np.array_equal(np.asarray(image[0]), np.asarray(image[1]))
    paper = plan(dataclasses.replace(COSINE, data_mean=mean), SamplingOptions(), True)
    assert np.abs(paper.start.mean).max() < 1e-4  # at timestep T - 1 there is no signal


@pytest.mark.parametrize("mean", [(0.0, 0.0), (0.0, 0.0, 1.5), (0.0, 0.0, float("nan"))])
def test_a_mean_colour_is_three_numbers(mean):
    with pytest.raises(ConfigError, match="must be three numbers in \\[-1, 1\\]"):
        DiffusionConfig(data_mean=mean)
