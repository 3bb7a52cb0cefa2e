"""Golden values for id3pm.diffusion, computed by the originals: guided-diffusion, and numpy's Philox for the seeds.

    PYTHONPATH=/path/to/guided-diffusion:. python tests/golden/make_diffusion_golden.py

guided-diffusion is https://github.com/openai/guided-diffusion (MIT). Nothing of id3pm is imported here.
"""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from guided_diffusion.respace import SpacedDiffusion, space_timesteps
from guided_diffusion.script_util import create_gaussian_diffusion

from tests.golden.diffusion_cases import (
    RESPACINGS,
    ROWS,
    SCHEDULES,
    SHAPE,
    TRAJECTORIES,
    Case,
    case_noise,
    denoiser,
    kept_states,
)

HERE = Path(__file__).parent
SCHEDULE_ARRAYS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
SEEDS = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (42, 1, 250), (2**32, 0, 3), (2**63 - 1, 1, 1000)]


def schedules() -> dict[str, np.ndarray]:
    arrays = {}
    for name, diffusion_steps, respacing in SCHEDULES:
        diffusion = create_gaussian_diffusion(
            steps=diffusion_steps, noise_schedule=name, timestep_respacing=respacing, learn_sigma=True
        )
        for array in SCHEDULE_ARRAYS:
            arrays[f"{name}/{diffusion_steps}/{respacing}/{array}"] = getattr(diffusion, array)
    return arrays


def respacings() -> list[list]:
    rows = []
    for diffusion_steps, text in RESPACINGS:
        try:
            timesteps = sorted(space_timesteps(diffusion_steps, text))
        except ValueError:
            timesteps = None  # refused
        rows.append([diffusion_steps, text, timesteps])
    return rows


def trajectory(name: str, case: Case) -> np.ndarray:
    diffusion: SpacedDiffusion = create_gaussian_diffusion(
        steps=case.diffusion_steps,
        learn_sigma=case.learn_sigma,
        noise_schedule=case.noise_schedule,
        timestep_respacing=case.steps,
        rescale_timesteps=case.rescale_timesteps,
    )
    count = diffusion.num_timesteps
    draws = torch.from_numpy(case_noise(name, count + 1))
    if case.in_float64:
        draws = draws.double()

    def model(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        column = timesteps.float().reshape(-1, 1, 1, 1)
        one = torch.ones_like(column)
        eps, variance = denoiser(x, column, one, case.learn_sigma)
        training_step = column * (case.diffusion_steps / 1000 if case.rescale_timesteps else 1)
        if case.guidance_scale != 1 and case.guidance_low <= training_step[0].item() <= case.guidance_high:
            eps_uncond, _ = denoiser(x, column, 0 * one, case.learn_sigma)
            eps = eps_uncond + case.guidance_scale * (eps - eps_uncond)
        return eps if variance is None else torch.cat([eps, variance], dim=1)

    def threshold(x0: torch.Tensor) -> torch.Tensor:
        s = torch.quantile(x0.abs().reshape(ROWS, -1), case.percentile, dim=1).clamp(min=1).reshape(-1, 1, 1, 1)
        return x0.clamp(-s, s) / s

    loop = {"ddpm": diffusion.p_sample_loop_progressive, "ddim": diffusion.ddim_sample_loop_progressive}[case.sampler]
    options = {"eta": case.eta} if case.sampler == "ddim" else {}
    noise = iter(draws[1:])
    # The original casts its coefficients with `.float()`.
    cast = torch.Tensor.double if case.in_float64 else torch.Tensor.float
    with mock.patch("torch.randn_like", lambda x: next(noise)), mock.patch("torch.Tensor.float", cast):
        states = [
            step["sample"].numpy()
            for step in loop(
                model,
                (ROWS, *SHAPE),
                noise=draws[0],
                denoised_fn=threshold if case.percentile else None,
                device=torch.device("cpu"),
                **options,
            )
        ]
    return np.stack([states[i] for i in kept_states(count)]).astype(np.float32)


def seed_values() -> dict[str, np.ndarray]:
    """The seed contract as numpy itself computes it: raw Philox words and the first normal numbers."""
    arrays = {}
    for seed, stage, draw in SEEDS:
        philox = np.random.Philox(key=np.array([seed, stage], dtype=np.uint64), counter=[0, 0, 0, draw])
        normal = np.random.Generator(philox).standard_normal(96, dtype=np.float32)
        arrays[f"{seed}/{stage}/{draw}"] = normal
    return arrays


def main() -> None:
    np.savez_compressed(HERE / "diffusion_schedules.npz", **schedules())
    np.savez_compressed(HERE / "diffusion_seeds.npz", **seed_values())
    np.savez_compressed(
        HERE / "diffusion_trajectories.npz", **{name: trajectory(name, case) for name, case in TRAJECTORIES.items()}
    )
    lines = ",\n".join(json.dumps(row) for row in respacings())
    (HERE / "diffusion_timesteps.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
