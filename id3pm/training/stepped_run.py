"""The steps of a run: up to a number of them, or until one process says stop."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator

Losses = dict[str, float]


class SteppedRun(abc.ABC):
    """A run that takes optimiser steps in one process or in several at once.

    A subclass sets `step` (steps done) and `_accelerator`.
    """

    step: int
    _accelerator: Accelerator

    @property
    @abc.abstractmethod
    def total_steps(self) -> int:
        """Optimiser steps in all."""

    @abc.abstractmethod
    def train_step(self) -> Losses:
        """Takes one optimiser step, and counts it in `step`; returns its losses."""

    def run(self, should_stop: Callable[[], bool]) -> Iterator[tuple[int, Losses]]:
        """Trains up to `total_steps`; yields (steps done, losses) after each step.

        Args:
            should_stop: Asked before each step, in every process; one process that says yes stops them all.
        """
        while self.step < self.total_steps and not self.agree(should_stop()):
            losses = self.train_step()
            yield self.step, losses

    def agree(self, flag: bool) -> bool:
        """True in every process as soon as one says so; called by all of them at the same step."""
        if self._accelerator.num_processes == 1:
            return flag
        votes = torch.tensor(float(flag), device=self._accelerator.device)
        return bool(self._accelerator.reduce(votes, "sum") > 0)
