"""The sampler of students: Song et al. (2023), algorithm 1, with eps or v, at the timesteps of the student alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.diffusion.coefficients import gather
from id3pm.diffusion.plans import plan
from id3pm.diffusion.samplers import sample, update
from id3pm.errors import ConfigError, InvalidOptionError
from id3pm.training.distillation.student import StudentSteps

STUDENT = DiffusionConfig(diffusion_steps=100, student_timesteps=(30, 60, 90))
OPTIONS = SamplingOptions(sampler="student", steps=3, guidance_scale=2.0, dynamic_threshold=0.0)


def alphas_cumprod(t: int) -> float:
    """Nichol and Dhariwal (2021), eq. 17."""

    def f(step: int) -> float:
        return float(np.cos((step / 100 + 0.008) / 1.008 * np.pi / 2) ** 2)

    return f(t + 1) / f(0)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_network_gives_the_image_in_one_step(prediction: str) -> None:
    process = dataclasses.replace(STUDENT, prediction=prediction)
    steps = plan(process, OPTIONS, False)
    x0 = np.clip(normal(0, 1, 3, 8, 8), -1, 1)
    for step, t in enumerate((90, 60, 30)):
        abar, eps = alphas_cumprod(t), normal(1, 1, 3, 8, 8)
        x = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * eps
        # Salimans and Ho (2022), appendix D
        v = np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0
        rows = gather([steps], [step])
        noise = normal(2, 1, 3, 8, 8)
        x_next, found = update(
            x.astype(np.float32),
            (v if prediction == "v" else eps).astype(np.float32),
            rows,
            noise=noise if step < 2 else None,
        )
        assert rows.timestep == [t] and not rows.guided.any()
        assert np.allclose(found, x0, atol=1e-4)
        following = alphas_cumprod((60, 30, 0)[step]) if step < 2 else 1.0
        expected = np.sqrt(following) * x0 + (np.sqrt(1 - following) * noise if step < 2 else 0.0)
        assert np.allclose(x_next, expected, atol=1e-4)


def test_only_the_first_step_begins_at_the_mean_colour() -> None:
    mean = (-0.5, 0.0, 0.5)
    process = dataclasses.replace(STUDENT, data_mean=mean)
    steps, seen = plan(process, OPTIONS, False), []

    def model(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        seen.append(x.mean((0, 2, 3)))
        return np.zeros_like(x)

    sample(model, np.zeros((1, 3, 8, 8), np.float32), [steps], lambda row, draw: np.zeros((3, 8, 8), np.float32))
    assert np.allclose(seen[0], np.sqrt(alphas_cumprod(90)) * np.array(mean), atol=1e-6)
    trained = StudentSteps(process, torch.device("cpu")).start(torch.zeros(1, 3, 8, 8)).mean((0, 2, 3))
    assert np.allclose(trained.numpy(), seen[0], atol=1e-6)


def test_fewer_steps_are_the_noisiest_ones() -> None:
    steps = plan(STUDENT, dataclasses.replace(OPTIONS, steps=2), False)
    assert steps.timestep.tolist() == [90, 60] and steps.evaluations == 2


def test_super_resolution_may_start_from_the_small_image() -> None:
    process = dataclasses.replace(STUDENT, student_start="low_res")
    low_res, noise, seen = normal(3, 2, 3, 4, 4), normal(0, 2, 3, 8, 8), []

    def model(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        seen.append(x)
        return np.zeros_like(x)

    for steps in (1, 3):
        plans = [plan(process, dataclasses.replace(OPTIONS, steps=steps), False)] * 2
        sample(model, noise, plans, lambda row, draw: normal(draw, 3, 8, 8), low_res)
        large = F.interpolate(torch.from_numpy(low_res), (8, 8), mode="bilinear", align_corners=False).numpy()
        abar = alphas_cumprod(90)
        assert np.allclose(seen[-steps], np.sqrt(abar) * large + np.sqrt(1 - abar) * noise, atol=1e-5)
        with pytest.raises(ValueError, match="pass low_res"):
            sample(model, noise, plans, lambda row, draw: normal(draw, 3, 8, 8))


def test_only_a_student_starts_from_the_small_image() -> None:
    with pytest.raises(ConfigError, match="student_start='low_res'"):
        DiffusionConfig(student_start="low_res")


def test_a_step_with_guidance_is_one_evaluation() -> None:
    calls = []

    def model(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return np.zeros_like(x)

    sample(model, normal(0, 2, 3, 8, 8), [plan(STUDENT, OPTIONS, False)] * 2, lambda row, draw: normal(draw, 3, 8, 8))
    assert calls == [2, 2, 2]


def test_a_student_has_eta_0_and_timesteps_of_its_process() -> None:
    with pytest.raises(InvalidOptionError, match="eta belongs to ddim"):
        dataclasses.replace(OPTIONS, eta=1.0)
    for wrong in ((), (60, 30), (30, 30), (30, 100)):
        with pytest.raises(ConfigError, match="student_timesteps"):
            DiffusionConfig(diffusion_steps=100, student_timesteps=wrong)


@pytest.mark.parametrize("wrong", [(3.0, 1.0), (0.5, 2.0), (1.0, 11.0)])
def test_a_guidance_range_is_within_the_scales_of_the_options(wrong: tuple[float, float]) -> None:
    sizes = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": (1,)}
    with pytest.raises(ConfigError, match="guidance_range"):
        UNetConfig(**sizes, attention_resolutions=(), identity_dim=8, guidance_range=wrong)
    with pytest.raises(ConfigError, match="nothing to guide"):
        UNetConfig(**sizes, attention_resolutions=(), guidance_range=(1.0, 2.0))
