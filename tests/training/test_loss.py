"""The hybrid loss and its gradient equal guided-diffusion's; weights by SNR follow their papers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from id3pm.config import DiffusionConfig
from id3pm.training.loss import HybridLoss
from tests.golden.training_cases import PROCESSES, arrays, timesteps

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/training_loss.json").read_text(encoding="utf-8"))


def diffusion(name: str) -> DiffusionConfig:
    schedule, _, rescaled = name.partition("-")
    return DiffusionConfig(
        diffusion_steps=PROCESSES[name],
        noise_schedule=schedule,
        rescale_timesteps=bool(rescaled),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_losses_equal_guided_diffusion(name: str) -> None:
    loss = HybridLoss(diffusion(name), learn_sigma=True)
    x0, noise, output = (torch.from_numpy(array) for array in arrays())
    t = torch.tensor(timesteps(PROCESSES[name]))
    terms = loss(output, x0, loss.q_sample(x0, t, noise), t, noise)
    for key, tolerance in (("mse", 1e-6), ("vb", 5e-4), ("loss", 1e-5)):  # the KL of near-equal normals cancels digits
        np.testing.assert_allclose(terms[key], GOLDEN[name][key], rtol=tolerance, err_msg=key)
    np.testing.assert_allclose(loss.timesteps(t), GOLDEN[name]["timesteps"])


@pytest.mark.parametrize("name", PROCESSES)
def test_gradients_equal_guided_diffusion_and_the_bound_does_not_move_the_mean(name: str) -> None:
    loss = HybridLoss(diffusion(name), learn_sigma=True)
    x0, noise, output = (torch.from_numpy(array) for array in arrays())
    output.requires_grad_(True)
    t = torch.tensor(timesteps(PROCESSES[name]))
    loss(output, x0, loss.q_sample(x0, t, noise), t, noise)["loss"].mean().backward()
    assert output.grad is not None
    for part, rows in (("eps", output.grad[:, :3]), ("variance", output.grad[:, 3:])):
        np.testing.assert_allclose(rows.flatten(1).norm(dim=1), GOLDEN[name][f"gradient_{part}"], rtol=5e-4)


def test_without_learned_variance_the_loss_is_the_mean_squared_error() -> None:
    loss = HybridLoss(DiffusionConfig(), learn_sigma=False)
    x0, noise, output = (torch.from_numpy(array) for array in arrays())
    t = torch.tensor(timesteps(1000))
    terms = loss(output[:, :3], x0, loss.q_sample(x0, t, noise), t, noise)
    assert set(terms) == {"loss", "mse"}
    np.testing.assert_allclose(terms["loss"], ((output[:, :3] - noise) ** 2).mean(dim=(1, 2, 3)), rtol=1e-6)


def test_min_snr_weights_cap_the_signal_to_noise_ratio() -> None:
    plain, weighted = (HybridLoss(DiffusionConfig(), learn_sigma=False, min_snr_gamma=g) for g in (None, 5.0))
    x0, noise, output = (torch.from_numpy(array) for array in arrays())
    t = torch.tensor([0, 10, 100, 400, 700, 999])
    x_t = plain.q_sample(x0, t, noise)
    ratio = (
        weighted(output[:, :3], x0, x_t, t, noise)["loss"] / plain(output[:, :3], x0, x_t, t, noise)["loss"]
    ).numpy()
    snr = (plain.get_buffer("sqrt_alphas_cumprod") / plain.get_buffer("sqrt_one_minus_alphas_cumprod"))[t].numpy() ** 2
    np.testing.assert_allclose(ratio, np.minimum(1.0, 5.0 / snr), rtol=1e-3)
    assert ratio[0] < 0.01 and ratio[-1] == 1.0


def test_a_floor_of_the_signal_to_noise_ratio_raises_the_noisiest_steps_alone() -> None:
    config = DiffusionConfig(noise_schedule="cosine")
    plain, weighted = (HybridLoss(config, learn_sigma=False, min_snr_gamma=5.0, snr_floor=f) for f in (0.0, 0.1))
    x0, noise, output = (torch.from_numpy(array) for array in arrays())
    t = torch.tensor([0, 100, 700, 850, 950, 999])
    x_t = plain.q_sample(x0, t, noise)
    first, second = (loss(output[:, :3], x0, x_t, t, noise)["loss"].numpy() for loss in (plain, weighted))
    snr = (plain.get_buffer("sqrt_alphas_cumprod") / plain.get_buffer("sqrt_one_minus_alphas_cumprod"))[t].numpy() ** 2
    np.testing.assert_array_equal(second[:3], first[:3])
    np.testing.assert_allclose(second[3:] / first[3:], np.minimum(0.1 / snr[3:], 100.0), rtol=1e-3)
    assert second[-1] / first[-1] == pytest.approx(100.0)  # the cosine schedule's last step has no image left
