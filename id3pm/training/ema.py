"""The exponential moving average of the weights, which is used for samples and for the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class Ema:
    """Averages parameters after every optimiser step.

    Args:
        parameters: (name, tensor) pairs, copied as the start of the average.
        rate: Weight of the old average (paper: 0.9999).
        warm_up: Use min(rate, (1 + n) / (10 + n)) at step n, so that the random start does not stay in the average of
            a run much shorter than 1 / (1 - rate) steps (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
        foreach: One call for all tensors; else one for each.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        *,
        rate: float = 0.9999,
        warm_up: bool = False,
        foreach: bool = True,
    ) -> None:
        self.rate = rate
        self.warm_up = warm_up
        self.foreach = foreach
        self.updates = 0
        self.average = {name: tensor.detach().float().clone() for name, tensor in parameters}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Average <- rate * average + (1 - rate) * parameter, for the same names as at the start."""
        self.updates += 1
        rate = self.current_rate()
        given = dict(parameters)
        new = [given[name].detach().float() for name in self.average]
        if self.foreach:
            torch._foreach_lerp_(list(self.average.values()), new, 1.0 - rate)
            return
        for average, parameter in zip(self.average.values(), new, strict=True):
            average.lerp_(parameter, 1.0 - rate)

    def current_rate(self) -> float:
        """The weight of the old average at the latest update."""
        return min(self.rate, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.rate

    def load_state_dict(self, updates: int, average: Mapping[str, Tensor]) -> None:
        """Continues a saved average, in place."""
        self.updates = updates
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
