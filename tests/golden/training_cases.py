"""Inputs of the training loss whose values guided-diffusion computed (make_training_golden.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PROCESSES = {"cosine": 1000, "linear": 1000, "linear-rescaled": 500}
"""Diffusion steps by case; the part before the hyphen is the noise schedule."""


def timesteps(steps: int) -> list[int]:
    """The ends, where special rules hold, and the middle."""
    return [0, 0, 1, steps // 20, steps // 2, steps - 1]


def arrays() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """x0 [6, 3, 8, 8] (the first image black, the second white), noise, and the network's output [6, 6, 8, 8]."""
    rng = np.random.Generator(np.random.Philox(key=7))
    x0 = rng.uniform(-1, 1, (6, 3, 8, 8)).astype(np.float32)
    x0[0], x0[1] = -1.0, 1.0
    noise = rng.standard_normal((6, 3, 8, 8), dtype=np.float32)
    output = rng.standard_normal((6, 6, 8, 8), dtype=np.float32) * np.float32(0.9)
    output[:, :3] = noise + np.float32(0.1) * output[:, :3]
    return x0, noise, output
