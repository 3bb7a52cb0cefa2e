"""Batches made ahead by threads, in pinned memory where a GPU trains, so that no step waits for its data."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence

import torch

from id3pm.training.batch import Batch, Batches

BATCH_LIMIT_S = 600.0
"""A batch takes far less."""


@dataclasses.dataclass(frozen=True)
class ReadyShares:
    """What one process needs of a batch: each (rank, world) that it will ask for, ready to be copied."""

    parts: Mapping[tuple[int, int], Batch]

    def share(self, rank: int, world: int, device: torch.device) -> Batch:
        """See `Batch.share`."""
        return self.parts[rank, world].on(device)


class BatchesBeside:
    """Batches that threads make while a step computes. A batch follows from its step, so threads change no bit.

    In memory are at most one batch for each thread, the one that is asked for and the one in use.

    Args:
        made: Where they come from.
        total_steps: Steps of the run: none is made beyond.
        threads: How many; each makes a batch. 1 where `made` has to be asked in order.
        shares: The (rank, world) that will be asked for.
        device: What trains. Where that is a GPU, their memory is pinned, from which copies run beside its work.
    """

    def __init__(
        self,
        made: Batches,
        total_steps: int,
        threads: int = 1,
        *,
        shares: Sequence[tuple[int, int]] = ((0, 1),),
        device: torch.device,
    ) -> None:
        self._made, self._total, self._threads = made, total_steps, threads
        self._shares, self._device = shares, device
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "batches", self._begin)
        self._ahead: dict[int, concurrent.futures.Future[ReadyShares]] = {}

    def at(self, step: int) -> ReadyShares:
        """The shares of optimiser step `step`; those of the steps behind it are begun."""
        wanted = range(step, max(min(step + 1 + self._threads, self._total), step + 1))
        for number in [number for number in self._ahead if number not in wanted]:
            self._ahead.pop(number).cancel()
        for number in wanted:
            if number not in self._ahead:
                self._ahead[number] = self._pool.submit(self._make, number)
        return self._ahead.pop(step).result(BATCH_LIMIT_S)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        """In each thread: pinning memory is the work of a GPU's driver, and the first GPU is not every process's."""
        if self._device.type == "cuda" and self._device.index is not None:
            torch.cuda.set_device(self._device)

    def _make(self, step: int) -> ReadyShares:
        batch = self._made.at(step)
        parts = {share: batch.part(*share) for share in self._shares}
        if self._device.type == "cuda":
            parts = {share: part.each(torch.Tensor.pin_memory) for share, part in parts.items()}
        return ReadyShares(parts)
