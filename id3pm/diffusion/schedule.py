"""Noise schedules and their respacing, in float64, equal to guided-diffusion's `SpacedDiffusion`.

Symbols of Ho et al. (2020): `betas` is beta_t, `alphas_cumprod` is abar_t = prod_s (1 - beta_s), and
q(x_t | x_0) = N(sqrt(abar_t) x_0, 1 - abar_t). Index 0 is the cleanest step everywhere in this file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SpacingName
from id3pm.errors import ConfigError, InvalidOptionError

Float64Array = NDArray[np.float64]
Respacing = int | str | Sequence[int]

NOISIEST_LOGSNR = -6.0
"""End of `logsnr` spacing: noisier timesteps hold only the mean colour of the image, amplified 20 times."""
MAX_BETA = 0.999  # Nichol and Dhariwal (2021), section 3.2: no singularity at t = T


def betas(config: DiffusionConfig) -> Float64Array:
    """The training process's beta_t, float64 [T].

    `linear` is Ho et al. (2020) stretched to any T; `cosine` is Nichol and Dhariwal (2021), eq. 17, with betas capped
    at 0.999.

    Raises:
        ConfigError: A linear schedule of so few steps that some beta reaches 1.
    """
    count = config.diffusion_steps
    if config.noise_schedule == "linear":
        scale = 1000 / count
        if scale * 0.02 >= 1:
            raise ConfigError(f"diffusion_steps={count} with a linear noise schedule: needs more than 20 steps")
        return np.linspace(scale * 0.0001, scale * 0.02, count, dtype=np.float64)

    def alpha_bar(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    # The math module, not numpy: numpy's SIMD cosine may differ from the original's in the last bit.
    return np.array([min(1 - alpha_bar((i + 1) / count) / alpha_bar(i / count), MAX_BETA) for i in range(count)])


def space_timesteps(diffusion_steps: int, respacing: Respacing) -> tuple[int, ...]:
    """The training timesteps that a shorter process keeps, ascending; equal to guided-diffusion's function.

    Args:
        diffusion_steps: T, the number of training timesteps.
        respacing: How many steps to keep in each of k equal sections of 0..T-1, cleanest section first: a number (one
            section), a sequence of numbers, or text such as `"250"` or `"10,20,30"`. `"ddim50"` keeps 50 steps an equal
            integer stride apart, as in the DDIM paper.

    Returns:
        Ascending timesteps in 0..T-1. A section of one step keeps its first (cleanest) timestep.

    Raises:
        InvalidOptionError: The text is not one of these forms, a section has too few steps or a negative count,
            nothing is kept, or no integer stride gives the number of DDIM steps.
    """
    if isinstance(respacing, str) and respacing.startswith("ddim"):
        return _ddim_timesteps(diffusion_steps, _count(respacing.removeprefix("ddim"), respacing))
    if isinstance(respacing, str):
        counts = [_count(part, respacing) for part in respacing.split(",")]
    else:
        counts = [respacing] if isinstance(respacing, int) else list(respacing)
    if sum(counts) < 1 or min(counts) < 0:
        raise InvalidOptionError(f"respacing={respacing!r}: counts must be 0 or more and keep at least one step")
    shortest, longer_sections = divmod(diffusion_steps, len(counts))
    timesteps: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        size = shortest + (section < longer_sections)
        if count > size:
            raise InvalidOptionError(
                f"respacing={respacing!r} wants {count} steps from a section of {size}: "
                f"{diffusion_steps} training steps make {len(counts)} section(s), ask for {size} steps or fewer"
            )
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):
            # Python's rounding (half to even) of an accumulated float, because the original does just that.
            timesteps.append(start + round(position))
            position += stride
        start += size
    return tuple(sorted(set(timesteps)))


def space_logsnr(config: DiffusionConfig, count: int) -> tuple[int, ...]:
    """The training timesteps whose log SNR, log(abar / (1 - abar)), is nearest to `count` equally spaced values.

    Lu et al. (2022) derive DPM-Solver for steps of equal length in half the log SNR. The noisiest value is
    `NOISIEST_LOGSNR`: at the end of the cosine schedule log SNR falls to -20, where the image has no signal left.

    Args:
        config: The training process.
        count: Number of timesteps to keep, 1 .. T.

    Returns:
        Ascending timesteps in 0 .. T - 1, all different: if training steps are too far apart, the next ones are taken.
    """
    kept = np.cumprod(1.0 - betas(config))
    log_snr = np.log(kept / (1.0 - kept))
    wanted = (
        np.linspace(log_snr[0], max(NOISIEST_LOGSNR, log_snr[-1]), count) if count > 1 else np.array([NOISIEST_LOGSNR])
    )
    nearest = np.abs(log_snr[:, None] - wanted).argmin(axis=0)
    places = np.arange(count)
    distinct = np.maximum.accumulate(nearest - places) + places
    return tuple(int(t) for t in np.minimum(distinct, config.diffusion_steps - count + places))


def _count(text: str, respacing: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidOptionError(
            f"respacing={respacing!r}: write a number of steps, numbers separated by commas, or 'ddim' and a number"
        ) from None


def _ddim_timesteps(diffusion_steps: int, count: int) -> tuple[int, ...]:
    for stride in range(1, diffusion_steps):
        timesteps = range(0, diffusion_steps, stride)
        if len(timesteps) == count:
            return tuple(timesteps)
    raise InvalidOptionError(
        f"respacing='ddim{count}': no integer stride through {diffusion_steps} training steps gives {count} steps"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """One (respaced) diffusion process. All arrays are read-only float64 [n], index 0 the cleanest step.

    Attributes:
        timesteps: The training timesteps that are kept, ascending.
        diffusion_steps: T of the training process.
        rescale_timesteps: Whether the U-Net gets t * 1000 / T.
        betas: beta of the respaced process: 1 - abar[i] / abar[i - 1].
    """

    timesteps: tuple[int, ...]
    diffusion_steps: int
    rescale_timesteps: bool
    betas: Float64Array

    def __len__(self) -> int:
        return len(self.timesteps)

    @functools.cached_property
    def alphas_cumprod(self) -> Float64Array:
        """abar_i: the share of signal variance left in x_i."""
        return _read_only(np.cumprod(1.0 - self.betas))

    @functools.cached_property
    def alphas_cumprod_prev(self) -> Float64Array:
        """abar_(i-1), one step cleaner; 1 before the first."""
        return _read_only(np.append(1.0, self.alphas_cumprod[:-1]))

    @functools.cached_property
    def sqrt_alphas_cumprod(self) -> Float64Array:
        """Signal's factor in q(x_i | x_0)."""
        return _read_only(np.sqrt(self.alphas_cumprod))

    @functools.cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Float64Array:
        """Noise's standard deviation in q(x_i | x_0)."""
        return _read_only(np.sqrt(1.0 - self.alphas_cumprod))

    @functools.cached_property
    def sqrt_recip_alphas_cumprod(self) -> Float64Array:
        """Factor of x_i in x_0 = a x_i - b eps."""
        return _read_only(np.sqrt(1.0 / self.alphas_cumprod))

    @functools.cached_property
    def sqrt_recipm1_alphas_cumprod(self) -> Float64Array:
        """Factor b of eps in x_0 = a x_i - b eps."""
        return _read_only(np.sqrt(1.0 / self.alphas_cumprod - 1))

    @functools.cached_property
    def posterior_variance(self) -> Float64Array:
        """Variance of q(x_(i-1) | x_i, x_0), Ho et al. (2020), eq. 7; 0 at index 0."""
        return _read_only(self.betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod))

    @functools.cached_property
    def posterior_log_variance_clipped(self) -> Float64Array:
        """Logarithm of `posterior_variance`, index 0 (where it is 0) taking the value of index 1.

        A process of one step has no index 1 and never adds noise; there beta stands in, so that the log is finite.
        """
        first = self.posterior_variance[1] if len(self) > 1 else self.betas[0]
        return _read_only(np.log(np.append(first, self.posterior_variance[1:])))

    @functools.cached_property
    def posterior_mean_coef1(self) -> Float64Array:
        """Factor of x_0 in the mean of q(x_(i-1) | x_i, x_0), Ho et al. (2020), eq. 7."""
        return _read_only(self.betas * np.sqrt(self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod))

    @functools.cached_property
    def posterior_mean_coef2(self) -> Float64Array:
        """Factor of x_i in the mean of q(x_(i-1) | x_i, x_0), Ho et al. (2020), eq. 7."""
        return _read_only((1.0 - self.alphas_cumprod_prev) * np.sqrt(1.0 - self.betas) / (1.0 - self.alphas_cumprod))

    @functools.cached_property
    def model_timesteps(self) -> NDArray[np.float32]:
        """What the U-Net is given at each step, float32 [n]: t, or t * 1000 / T where the model was trained so."""
        timesteps = np.array(self.timesteps, dtype=np.float32)
        if self.rescale_timesteps:
            timesteps = timesteps * np.float32(1000.0 / self.diffusion_steps)
        timesteps.setflags(write=False)
        return timesteps


def respaced_schedule(config: DiffusionConfig, respacing: Respacing, spacing: SpacingName = "uniform") -> Schedule:
    """The process that keeps some of the timesteps; cached.

    Args:
        config: The training process.
        respacing: What `space_timesteps` takes; with `logsnr` spacing a number.
        spacing: `uniform`: the timesteps of `space_timesteps(T, respacing)`; `logsnr`: those of `space_logsnr`.

    `respaced_schedule(config, config.diffusion_steps)` is the training process itself, as guided-diffusion trains it.

    Raises:
        ConfigError, InvalidOptionError: As `betas` and `space_timesteps`.
    """
    if spacing == "logsnr":
        if not isinstance(respacing, int):
            raise InvalidOptionError(f"respacing={respacing!r}: logsnr spacing takes a number of steps")
        return kept_schedule(config, space_logsnr(config, respacing))
    return _respaced_schedule(config, respacing if isinstance(respacing, (int, str)) else tuple(respacing))


def student_schedule(config: DiffusionConfig, count: int) -> Schedule:
    """The noisiest `count` timesteps at which a student was trained: the process of sampler `student`."""
    kept = config.student_timesteps
    assert kept is not None and count <= len(kept)  # `id3pm.diffusion.plans.check_student` says so to users
    return kept_schedule(config, kept[len(kept) - count :])


def nearest_timestep(config: DiffusionConfig, log_snr: float) -> int:
    """The training timestep whose log SNR, log(abar / (1 - abar)), is nearest."""
    kept = np.cumprod(1.0 - betas(config))
    return int(np.abs(np.log(kept / (1.0 - kept)) - log_snr).argmin())


def steps_from(config: DiffusionConfig, timestep: int, count: int) -> tuple[int, ...]:
    """Up to `count` timesteps from the clean end to this one, which is the last; equally spaced in log SNR."""
    kept = np.cumprod(1.0 - betas(config))
    log_snr = np.log(kept / (1.0 - kept))
    wanted = np.linspace(log_snr[timestep], log_snr[0], count, endpoint=False)
    return tuple(sorted({int(np.abs(log_snr - value).argmin()) for value in wanted}))


@functools.lru_cache(maxsize=256)
def _respaced_schedule(config: DiffusionConfig, respacing: int | str | tuple[int, ...]) -> Schedule:
    return kept_schedule(config, space_timesteps(config.diffusion_steps, respacing))


def kept_schedule(config: DiffusionConfig, timesteps: tuple[int, ...]) -> Schedule:
    """The process that keeps these training timesteps, ascending and different."""
    kept = np.cumprod(1.0 - betas(config))[list(timesteps)]
    # The betas under which the kept steps have the same abar as in training (Nichol and Dhariwal 2021, eq. 19).
    respaced_betas = 1 - kept / np.append(1.0, kept[:-1])
    return Schedule(
        timesteps=timesteps,
        diffusion_steps=config.diffusion_steps,
        rescale_timesteps=config.rescale_timesteps,
        betas=_read_only(respaced_betas),
    )


def _read_only(array: Float64Array) -> Float64Array:
    array.setflags(write=False)
    return array
