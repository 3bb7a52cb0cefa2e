"""The closed-form denoiser of the golden values, called as the reference loop calls a U-Net."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from tests.golden.diffusion_cases import denoiser


def column(values: Any, like: Any) -> Any:
    """Per-row scalars as float32 [N, 1, 1, 1] beside `like`."""
    xp = array_namespace(like)
    return xp.reshape(xp.asarray(np.asarray(values, np.float32), device=device(like)), (-1, 1, 1, 1))


class FakeUNet:
    """A `ModelFn` that also counts the rows it evaluates."""

    def __init__(self, learn_sigma: bool = True) -> None:
        self.learn_sigma = learn_sigma
        self.evaluations = 0

    def __call__(self, x: Any, timesteps: Any, rows: Any, conditional: Any) -> Any:
        self.evaluations += len(rows)
        eps, variance = denoiser(x, column(timesteps, x), column(conditional, x), self.learn_sigma)
        return eps if variance is None else array_namespace(x).concat([eps, variance], axis=1)
