"""Coefficients of every step of every sampler: computed in float64, once per (process, options).

With the (guided) output of the U-Net, one step of every sampler here is

    x0     = consistent(clip(a x - b output))
    x_next = c_x x + c_x0 x0 + c_prev x0_prev + std noise

where a = sqrt(1 / abar_t), b = sqrt(1 / abar_t - 1) if the output is eps, and a = sqrt(abar_t), b = sqrt(1 - abar_t) if
it is v (Salimans and Ho 2022, appendix D).

    ddpm      guided-diffusion's `SpacedDiffusion.p_sample`: the respaced ancestral sampler of Nichol and Dhariwal
              (2021); variance LEARNED_RANGE where the U-Net learns it, else FIXED_LARGE
    ddim      guided-diffusion's `ddim_sample` with eta: Song et al. (2020), eq. 12, eps re-derived from the clipped x0
    dpmpp_2m  DPM-Solver++(2M) of Lu et al. (2022), algorithm 2, midpoint; the last step goes to x0. Equal to diffusers'
              DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
              final_sigmas_type="zero"), all else at its defaults, with `set_timesteps(timesteps=...)` given
              the timesteps of `space_timesteps` (noisiest first), and x0 clipped as its `thresholding` does
    student   multistep consistency sampling of Song et al. (2023), algorithm 1: every step is a whole image, to which
              noise is added anew for the next; at the timesteps a student was trained for (`id3pm distill`), and with
              guidance inside the network. The first step is given pure noise, or the small image through noise
              (`DiffusionConfig.student_start`)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, PredictionName, SamplingOptions
from id3pm.diffusion.coefficients import Float32Array, Float64Array, StepPlan
from id3pm.diffusion.schedule import Schedule, respaced_schedule, student_schedule
from id3pm.diffusion.start import Start
from id3pm.errors import InvalidOptionError

ScalarT = TypeVar("ScalarT", bound=np.generic)


def plan(config: DiffusionConfig, options: SamplingOptions, learn_sigma: bool) -> StepPlan:
    """All steps of one image; cached.

    Args:
        config: The process that the U-Net was trained with.
        options: How to sample. The guidance interval is in training timesteps, before any rescaling.
        learn_sigma: The U-Net has variance channels.

    Raises:
        InvalidOptionError: More steps than the process has, or an option that a student cannot honour.
        ConfigError: The process has no valid betas.
    """
    return _plan(config, options, learn_sigma)


@functools.lru_cache(maxsize=256)
def _plan(config: DiffusionConfig, options: SamplingOptions, learn_sigma: bool) -> StepPlan:
    check_options(config, options)
    if config.student_timesteps is not None:
        return student_plan(config, options)
    schedule = respaced_schedule(config, options.steps, options.spacing)
    return plan_from_schedule(schedule, options, learn_sigma, config.prediction, config.data_mean)


def student_plan(config: DiffusionConfig, options: SamplingOptions) -> StepPlan:
    """The steps of a student: its noisiest `options.steps` timesteps."""
    schedule = student_schedule(config, options.steps)
    if config.student_start == "noise":
        return plan_from_schedule(schedule, options, False, config.prediction, config.data_mean)
    steps = plan_from_schedule(schedule, options, False, config.prediction)  # the small image has its colours
    start = Start(None, float(schedule.sqrt_alphas_cumprod[-1]), float(schedule.sqrt_one_minus_alphas_cumprod[-1]))
    return dataclasses.replace(steps, start=start)


def check_options(
    config: DiffusionConfig, options: SamplingOptions, names: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuses what a process cannot honour: see `plan` and `check_student`.

    Args:
        config: The process that the U-Net was trained with.
        options: How to sample.
        names: What the reader calls a field, where that is another name; see `id3pm.config.broken_rule`.

    Raises:
        InvalidOptionError: The message names the option.
    """
    if options.steps > config.diffusion_steps:
        raise InvalidOptionError(
            f"{names.get('steps', 'steps')}={options.steps}: this model has {config.diffusion_steps} training steps, "
            "ask for that many or fewer"
        )
    check_student(config, options, names)


def check_student(
    config: DiffusionConfig, options: SamplingOptions, names: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuses what a student was not trained for, and its sampler for all others.

    Args:
        config: The process that the U-Net was trained with.
        options: How to sample.
        names: What the reader calls a field, where that is another name; see `id3pm.config.broken_rule`.

    Raises:
        InvalidOptionError: The message names the option.
    """

    def shown(field: str) -> str:
        return f"{names.get(field, field)}={getattr(options, field)!r}"

    if config.student_timesteps is None:
        if options.sampler == "student":
            raise InvalidOptionError(f"{shown('sampler')}: this bundle is no student; choose ddpm, ddim or dpmpp_2m")
        return
    taught, usual = len(config.student_timesteps), SamplingOptions()
    if options.sampler != "student":
        raise InvalidOptionError(
            f"{shown('sampler')}: this bundle is a student; send student, with 1 .. {taught} steps, and no preset"
        )
    if options.steps > taught:
        raise InvalidOptionError(f"{shown('steps')}: this bundle is a student of {taught}, ask for that many or fewer")
    for field in ("spacing", "guidance_low", "guidance_high"):
        if getattr(options, field) != getattr(usual, field):
            raise InvalidOptionError(f"{shown(field)}: a student has no choice of it; leave {getattr(usual, field)!r}")


def plan_from_schedule(
    schedule: Schedule,
    options: SamplingOptions,
    learn_sigma: bool,
    prediction: PredictionName = "eps",
    data_mean: Sequence[float] | None = None,
) -> StepPlan:
    """As `plan`, for a process that was respaced in any other way (such as "ddim25"); `options.steps` is not read."""
    count = len(schedule)
    learned = learn_sigma and options.sampler == "ddpm"
    if options.sampler == "ddpm":
        c_x, c_x0, c_prev, std = _ddpm(schedule)
    elif options.sampler == "ddim":
        c_x, c_x0, c_prev, std = _ddim(schedule, options.eta)
    elif options.sampler == "student":
        c_x, c_x0, c_prev, std = _student(schedule)
    else:
        c_x, c_x0, c_prev, std = _dpmpp_2m(schedule)
    from_x, from_output = _x0_factors(schedule, prediction)
    timesteps = np.array(schedule.timesteps)
    inside = (options.guidance_low <= timesteps) & (timesteps <= options.guidance_high)
    needs_noise = std > 0
    needs_noise[0] = False  # the last step ends at the mean

    real = functools.partial(_noisiest_first, dtype=np.float32)
    flag = functools.partial(_noisiest_first, dtype=np.bool_)
    return StepPlan(
        timestep=real(schedule.model_timesteps),
        x0_from_x=real(from_x),
        x0_from_output=real(from_output),
        c_x=real(c_x),
        c_x0=real(c_x0),
        c_prev=real(c_prev),
        std=real(np.where(needs_noise, std, 0.0)),
        min_log_variance=real(schedule.posterior_log_variance_clipped),
        max_log_variance=real(np.log(schedule.betas)),
        guidance_scale=real(np.full(count, options.guidance_scale)),
        percentile=_noisiest_first(np.full(count, options.dynamic_threshold), np.float64),
        consistency=real(np.full(count, options.consistency)),
        guided=flag(inside & (options.guidance_scale != 1.0) & (options.sampler != "student")),
        learned_variance=flag(needs_noise & learned),
        needs_noise=flag(needs_noise),
        start=_start(schedule, data_mean),
    )


def _start(schedule: Schedule, data_mean: Sequence[float] | None) -> Start | None:
    if data_mean is None:
        return None
    scaled: Float32Array = (
        (np.sqrt(schedule.alphas_cumprod[-1]) * np.array(data_mean)).astype(np.float32).reshape(3, 1, 1)
    )
    scaled.setflags(write=False)
    return Start(scaled)


def _x0_factors(schedule: Schedule, prediction: PredictionName) -> tuple[Float64Array, Float64Array]:
    """A and b of x0 = a x - b output."""
    if prediction == "v":
        return schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod
    return schedule.sqrt_recip_alphas_cumprod, schedule.sqrt_recipm1_alphas_cumprod


def _noisiest_first(cleanest_first: NDArray[np.generic], dtype: type[ScalarT]) -> NDArray[ScalarT]:
    steps = cleanest_first[::-1].astype(dtype)
    steps.setflags(write=False)
    return steps


def _ddpm(schedule: Schedule) -> tuple[Float64Array, ...]:
    """Mean of q(x_(i-1) | x_i, x0) and, for U-Nets that do not learn it, the variance beta (FIXED_LARGE)."""
    return (
        schedule.posterior_mean_coef2,
        schedule.posterior_mean_coef1,
        np.zeros(len(schedule)),
        np.sqrt(schedule.betas),
    )


def _ddim(schedule: Schedule, eta: float) -> tuple[Float64Array, ...]:
    """sqrt(abar_prev) x0 + sqrt(1 - abar_prev - sigma^2) eps + sigma noise, eps = (x - sqrt(abar) x0) / sqrt(1 - abar).

    Song et al. (2020), eq. 12 and 16.
    """
    alpha_bar, alpha_bar_prev = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    sigma = eta * np.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) * np.sqrt(1 - alpha_bar / alpha_bar_prev)
    # Never negative but for rounding, where eta = 1 and sigma^2 comes close to 1 - abar_prev.
    c_x = np.sqrt(np.maximum(1 - alpha_bar_prev - sigma**2, 0.0)) / schedule.sqrt_one_minus_alphas_cumprod
    return c_x, np.sqrt(alpha_bar_prev) - c_x * schedule.sqrt_alphas_cumprod, np.zeros(len(schedule)), sigma


def _dpmpp_2m(schedule: Schedule) -> tuple[Float64Array, ...]:
    """(sigma_next / sigma) x - alpha_next (exp(-h) - 1) D with D = x0 + (x0 - x0_prev) / (2 r).

    Lu et al. (2022), eq. 17, in half log-SNR: lambda = log(alpha / sigma), h = lambda_next - lambda and
    r = (lambda - lambda_before) / h. "next" is one step cleaner, "before" one step noisier. The first step has no
    x0_prev and the last goes to lambda = infinity: both are of first order (D = x0), the last therefore ends at x0.
    """
    alpha, sigma = schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod
    alpha_next = np.sqrt(schedule.alphas_cumprod_prev)
    sigma_next = np.append(0.0, sigma[:-1])
    c_x = sigma_next / sigma
    # exp(-h) = (alpha sigma_next) / (sigma alpha_next), and so no infinity at the last step.
    first_order = alpha_next - alpha * c_x
    log_snr = np.log(alpha / sigma)
    extrapolation = np.zeros(len(schedule))  # 1 / (2 r)
    extrapolation[1:-1] = (log_snr[:-2] - log_snr[1:-1]) / (2 * (log_snr[1:-1] - log_snr[2:]))
    return c_x, first_order * (1 + extrapolation), -first_order * extrapolation, np.zeros(len(schedule))


def _student(schedule: Schedule) -> tuple[Float64Array, ...]:
    """sqrt(abar_prev) x0 + sqrt(1 - abar_prev) noise: q(x_prev | x0) for the image that this step made.

    Song et al. (2023), "Consistency Models", algorithm 1.
    """
    nothing = np.zeros(len(schedule))
    return nothing, np.sqrt(schedule.alphas_cumprod_prev), nothing, np.sqrt(1.0 - schedule.alphas_cumprod_prev)
