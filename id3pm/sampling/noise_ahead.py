"""Noise that is drawn before a step needs it, by threads: numpy lets other threads run while it draws."""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.diffusion.noise import noise
from id3pm.sampling.row import Row

FloatArray = NDArray[np.float32]
TIMEOUT_S = 60.0  # a draw takes milliseconds
LIMIT_BYTES = 64 << 20
"""Of drawn noise that no step has taken yet; beyond it nothing is drawn ahead."""


class NoiseAhead:
    """The draws of the seed contract for rows in flight. What a row will need is known when it arrives."""

    def __init__(
        self,
        stage: int,
        shape: tuple[int, ...],
        host: Callable[[tuple[int, ...]], FloatArray],
        threads: int = 1,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Starts no thread yet.

        Args:
            stage: Of the seed contract.
            shape: Of an image, [3, S, S].
            host: Makes the memory that is drawn into.
            threads: How many draw at a time.
            limit_bytes: Most bytes that are drawn ahead.
        """
        self._stage, self._shape, self._host = stage, shape, host
        self._most = limit_bytes // (4 * math.prod(shape))
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=f"noise-{stage}")
        self._draws: dict[tuple[Row, int], concurrent.futures.Future[FloatArray]] = {}
        self._lock = threading.Lock()

    def prefetch(self, row: Row) -> None:
        """Begins to draw what the row's next step needs; from any thread."""
        with self._lock:
            for draw in () if row.answered else row.next_draws:
                if (row, draw) not in self._draws and len(self._draws) < self._most:
                    self._submit(row, draw)

    def take(self, rows: Sequence[Row], draws: Sequence[int]) -> list[FloatArray]:
        """These draws, [3, S, S] each, which then belong to the caller; waits for those that are not ready."""
        with self._lock:
            for row, draw in zip(rows, draws, strict=True):
                if (row, draw) not in self._draws:
                    self._submit(row, draw)
            futures = [self._draws.pop((row, draw)) for row, draw in zip(rows, draws, strict=True)]
        return [future.result(TIMEOUT_S) for future in futures]

    def drop(self, row: Row) -> None:
        """Forgets what was drawn for a row that has ended."""
        with self._lock:
            for key in [key for key in self._draws if key[0] is row]:
                self._draws.pop(key).cancel()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, row: Row, draw: int) -> None:
        self._draws[row, draw] = self._pool.submit(self._draw, row.request.seed, draw)

    def _draw(self, seed: int, draw: int) -> FloatArray:
        return noise(seed, self._stage, draw, self._shape, out=self._host(self._shape))
