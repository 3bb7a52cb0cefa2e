"""What the diffusion golden values are made of: shared by the script that makes them and the tests that read them.

The denoiser uses only operations that IEEE 754 rounds exactly (+ - * / abs), so numpy and torch give the same bits and
a trajectory compares samplers, not libraries.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

ROWS, SHAPE = 2, (3, 4, 4)
KEPT_STATES = 11  # how many states of a trajectory are stored, evenly spread, the last included


@dataclasses.dataclass(frozen=True)
class Case:
    """One trajectory of guided-diffusion.

    Attributes:
        steps: Any respacing text.
        percentile: Of dynamic thresholding; 0 clamps x0.
        in_float64: The original's own code runs in float64 instead of float32: for eta = 1 its float32
            1 - abar_prev - sigma^2 cancels to two digits where abar is near 0.
    """

    noise_schedule: str = "cosine"
    diffusion_steps: int = 1000
    steps: str = "10"
    sampler: str = "ddpm"
    eta: float = 0.0
    learn_sigma: bool = True
    rescale_timesteps: bool = False
    guidance_scale: float = 1.0
    guidance_low: int = 0
    guidance_high: int = 1_000_000
    percentile: float = 0.0
    in_float64: bool = False


TRAJECTORIES = {
    "ddpm_cosine_10": Case(),
    "ddpm_cosine_250": Case(steps="250"),
    "ddpm_linear_10": Case(noise_schedule="linear"),
    "ddpm_linear_250": Case(noise_schedule="linear", steps="250"),
    "ddpm_fixed_large_cosine_10": Case(learn_sigma=False),
    "ddpm_fixed_large_linear_250": Case(noise_schedule="linear", steps="250", learn_sigma=False),
    "ddpm_rescaled_100_of_400": Case(diffusion_steps=400, steps="100", rescale_timesteps=True),
    "ddpm_every_step_of_50": Case(diffusion_steps=50, steps="50", noise_schedule="linear"),
    "ddpm_two_steps": Case(steps="2"),
    "ddpm_guided_paper_25": Case(steps="25", guidance_scale=2.0, percentile=0.99),
    "ddpm_guidance_interval_25": Case(steps="25", guidance_scale=4.0, guidance_low=200, guidance_high=700),
    "ddpm_sections_10_15_20": Case(steps="10,15,20"),
    "ddim_cosine_10": Case(sampler="ddim"),
    "ddim_linear_ddim25": Case(noise_schedule="linear", steps="ddim25", sampler="ddim"),
    "ddim_linear_50_eta_half": Case(noise_schedule="linear", steps="50", sampler="ddim", eta=0.5),
    "ddim_cosine_25_eta_one": Case(steps="25", sampler="ddim", eta=1.0, in_float64=True),
    "ddim_fixed_large_rescaled_25": Case(steps="25", sampler="ddim", learn_sigma=False, rescale_timesteps=True),
    "ddim_guided_thresholded_25": Case(steps="25", sampler="ddim", guidance_scale=5.0, percentile=0.9),
}

# (noise_schedule, diffusion_steps, respacing) whose every array is compared.
SCHEDULES = [
    ("cosine", 1000, "1000"),
    ("linear", 1000, "1000"),
    ("cosine", 1000, "250"),
    ("linear", 1000, "27"),
    ("cosine", 1000, "ddim25"),
    ("linear", 400, "10,15,20"),
    ("cosine", 50, "2"),
    ("linear", 21, "21"),
]

# (diffusion_steps, respacing): results and refusals of the original are stored side by side.
RESPACINGS = [
    *((1000, str(count)) for count in (1, 2, 3, 7, 10, 25, 27, 50, 100, 250, 333, 500, 777, 999, 1000, 1001)),
    *((1000, f"ddim{count}") for count in (1, 2, 3, 10, 25, 30, 50, 77, 100, 250, 334, 500, 501, 1000, 1001)),
    *((1000, text) for text in ("10,10,10,10,10", "100,50,25", "0,10", "10,0", "334,333,333", "334,334,333", "")),
    *((300, text) for text in ("10,15,20", "100,100,100", "1,1,1", "101,1,1", "ddim300", "ddim150", "ddim7", "ddim")),
    *((1, text) for text in ("1", "2", "ddim1", "1,0")),
    *(
        (7, text)
        for text in ("3", "7", "1,2,3", "3,2,2", "1,1,1,1,1,1,1", "1,1,1,1,1,1,1,1", "ddim4", "a", "2,", "2.5")
    ),
]


def denoiser(x: Any, timesteps: Any, conditional: Any, learn_sigma: bool) -> tuple[Any, Any]:
    """A closed-form eps and variance (or `None`), float32 numpy or torch.

    Args:
        x: [N, 3, H, W].
        timesteps: [N, 1, 1, 1].
        conditional: [N, 1, 1, 1], 1 with the condition and 0 without.
        learn_sigma: Give a variance.
    """
    time = timesteps / 1000
    squashed = x / (1 + abs(x))
    eps = x * (0.5 + 0.5 * time) + squashed * (1 - time) / 4 + conditional * (x / (1 + x * x)) / 8
    variance = squashed * 2 - (1 - time) * conditional / 2
    return eps, variance if learn_sigma else None


def case_noise(case_name: str, draws: int) -> np.ndarray:
    """x_T and then the noise of every step, float32 [draws, ROWS, 3, 4, 4]; another stream for every case."""
    rng = np.random.default_rng(list(case_name.encode()))
    return rng.standard_normal((draws, ROWS, *SHAPE), dtype=np.float32)


def kept_states(steps: int) -> np.ndarray:
    """After which steps (0 = the noisiest) the state of a trajectory is stored."""
    return np.unique(np.linspace(0, steps - 1, KEPT_STATES).round().astype(int))
