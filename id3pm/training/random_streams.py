"""The random numbers of a run, each a pure function of (seed, purpose, step).

The whole batch's randomness is drawn in one place, in one order, on the CPU; each process then takes its share of rows.
So the number of processes does not change what is trained on, and a run resumes exactly where it stopped.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

ORDER_STREAM, ROW_STREAM, DROPOUT_STREAM, ROLLOUT_STREAM, JITTER_STREAM = range(5)
"""Second key word of Philox: the purpose. Those of `id3pm.training.distillation.pairs` begin at 10."""


def step_rng(seed: int, stream: int, counter: int) -> np.random.Generator:
    """The random numbers of one step (or epoch) of one stream."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64), counter=counter << 64))


def rows_of_step(seed: int, step: int, batch_size: int, count: int) -> NDArray[np.int64]:
    """Which images step `step` takes: epochs without replacement, one after the other, across batch borders."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, np.int64)
    for epoch in np.unique(positions // count):
        inside = positions // count == epoch
        rows[inside] = _epoch_order(seed, int(epoch), count)[positions[inside] % count]
    return rows


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return step_rng(seed, ORDER_STREAM, epoch).permutation(count)
