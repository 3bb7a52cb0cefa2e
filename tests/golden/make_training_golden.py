"""Computes golden values of the training loss with the original code.

    PYTHONPATH=PATH python -m tests.golden.make_training_golden    # PATH: a checkout of openai/guided-diffusion

Writes training_loss.json beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from guided_diffusion.script_util import create_gaussian_diffusion

from tests.golden.training_cases import PROCESSES, arrays, timesteps


def main() -> None:
    """Every case's losses, what the network is told, and the gradient of the mean loss at the network's output."""
    golden = {}
    for name, steps in PROCESSES.items():
        schedule, _, rescaled = name.partition("-")
        original = create_gaussian_diffusion(
            steps=steps,
            learn_sigma=True,
            noise_schedule=schedule,
            rescale_timesteps=bool(rescaled),
            rescale_learned_sigmas=True,  # L_vlb / 1000 whatever T is; without it the two agree at T = 1000 only
        )
        x0, noise, output = (torch.from_numpy(array) for array in arrays())
        output.requires_grad_(True)
        told: list[float] = []

        def network(x: torch.Tensor, t: torch.Tensor, out: torch.Tensor = output, told: list[float] = told) -> object:
            told += t.tolist()
            return out

        terms = original.training_losses(network, x0, torch.tensor(timesteps(steps)), noise=noise)
        terms["loss"].mean().backward()
        golden[name] = {
            "timesteps": told,
            **{key: terms[key].tolist() for key in ("loss", "mse", "vb")},
            "gradient_eps": output.grad[:, :3].flatten(1).norm(dim=1).tolist(),
            "gradient_variance": output.grad[:, 3:].flatten(1).norm(dim=1).tolist(),
        }
    Path(__file__).with_name("training_loss.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
