"""The closed-form denoiser of the golden values, called as the reference loop calls a U-Net."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from id3pm.diffusion.guidance import column
from tests.golden.diffusion_cases import denoiser


class FakeUNet:
    """A `ModelFn` that also counts the rows it evaluates."""

    def __init__(self, learn_sigma: bool = True) -> None:
        self.learn_sigma = learn_sigma
        self.evaluations = 0

    def __call__(self, x: Any, timesteps: Any, rows: Any, conditional: Any) -> Any:
        self.evaluations += len(rows)
        eps, variance = denoiser(x, column(timesteps, x), column(conditional, x), self.learn_sigma)
        return eps if variance is None else array_namespace(x).concat([eps, variance], axis=1)
