"""One step's input, and what a source of such batches is; each process takes its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from id3pm.training.presets import TrainConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Change = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class RolloutDraws:
    """Input of the rollouts of one step (`id3pm.training.rollouts`); for some rows of all, or all.

    Attributes:
        vectors: ID vectors of people who begin now, float32 [R, D].
        alignments: As of `Batch`, of those people's images, float32 [R, 2, 3].
        start: Standard normal, their initial noise and the noise of the first steps, float32 [K, R, 3, S, S].
        noise: Standard normal, for this step of the sampler, float32 [R, 3, S, S].
        jitter: Variation of this step's crops, float32 [R, 2, 3]; see
            `id3pm.training.variation.jitter`.
        mean: Mean of the data set's ID vectors, float32 [D].
        first: Number of the first row among the rows of all processes.
        world: From one row to the next, in those numbers.
        total: Rows of all processes.
    """

    vectors: Tensor
    alignments: Tensor
    start: Tensor
    noise: Tensor
    jitter: Tensor
    mean: Tensor
    first: int = 0
    world: int = 1
    total: int = 1

    def turn(self, row: int, steps: int) -> int:
        """In which of `steps` steps a row begins; rows are spread evenly."""
        return (self.first + row * self.world) * steps // self.total

    def part(self, rank: int, world: int) -> RolloutDraws:
        """See `Batch.part`."""
        rows = {name: getattr(self, name)[rank::world] for name in ("vectors", "alignments", "noise", "jitter")}
        given = {name: value.contiguous() for name, value in {**rows, "start": self.start[:, rank::world]}.items()}
        return dataclasses.replace(self, **given, first=rank, world=world, total=len(self.vectors))

    def each(self, change: Change) -> RolloutDraws:
        """See `Batch.each`."""
        return dataclasses.replace(self, **_changed(self, change))


@dataclasses.dataclass(frozen=True)
class Batch:
    """One optimiser step's input, on the CPU.

    Attributes:
        x0: Clean images, float32 [N, 3, S, S] in [-1, 1].
        noise: Standard normal, float32 [N, 3, S, S].
        t: int64 [N], uniform in 0 .. T - 1.
        conditions: Keyword arguments of the U-Net: `identity` [N, D], `attributes` [N, A], `low_res` [N, 3, s, s].
        alignments: For the identity and the landmark loss, float32 [N, 2, 3]; see
            `id3pm.training.identity_loss.crop_to_image`.
        rollouts: Where the run has rollouts.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    conditions: dict[str, Tensor]
    alignments: Tensor | None = None
    rollouts: RolloutDraws | None = None

    def part(self, rank: int, world: int) -> Batch:
        """The rows of one of `world` processes: every world-th row, contiguous."""
        rollouts = None if self.rollouts is None else self.rollouts.part(rank, world)
        rows = dataclasses.replace(self, rollouts=None).each(lambda x: x[rank::world].contiguous())
        return dataclasses.replace(rows, rollouts=rollouts)

    def each(self, change: Change) -> Batch:
        """The same with every tensor changed, such as copied to another memory."""
        rollouts = None if self.rollouts is None else self.rollouts.each(change)
        conditions = {name: change(value) for name, value in self.conditions.items()}
        return dataclasses.replace(self, **_changed(self, change), conditions=conditions, rollouts=rollouts)

    def on(self, device: torch.device) -> Batch:
        """The same on a device; copies from pinned memory are enqueued, and not waited for."""
        return self.each(lambda x: x.to(device, non_blocking=True))

    def share(self, rank: int, world: int, device: torch.device) -> Batch:
        """`part` on a device."""
        return self.part(rank, world).on(device)


def _changed(fields: DataclassInstance, change: Change) -> dict[str, Any]:
    """The fields that are tensors, changed."""
    return {name: change(value) for name, value in vars(fields).items() if isinstance(value, Tensor)}


class Shares(Protocol):
    """A batch of which each process takes its rows."""

    def share(self, rank: int, world: int, device: torch.device) -> Batch:
        """See `Batch.share`."""
        ...


class SharedBatches(Protocol):
    """A source of batches for training."""

    def at(self, step: int) -> Shares:
        """The batch of optimiser step `step` (0, 1, ...)."""
        ...


class Batches(Protocol):
    """A source of whole batches, on the CPU."""

    def at(self, step: int) -> Batch:
        """The batch of optimiser step `step` (0, 1, ...)."""
        ...


def shares_of(config: TrainConfig, accelerator: Accelerator) -> list[tuple[int, int]]:
    """What this process takes of each batch, pass by pass: see `Batch.share`."""
    rank, world, parts = accelerator.process_index, accelerator.num_processes, config.accumulation
    return [(rank + world * part, world * parts) for part in range(parts)]
