"""Draws noise ahead of the steps that need it, in threads: numpy releases the interpreter lock while it draws."""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.diffusion.noise import noise
from id3pm.diffusion.start import first_input
from id3pm.sampling.row import Row

FloatArray = NDArray[np.float32]
_Draw = tuple[Row, int]  # a row, and the number of its draw
TIMEOUT_S = 60.0  # a draw takes milliseconds
LIMIT_BYTES = 64 << 20
"""Of drawn noise that no step has taken yet; beyond it nothing is drawn ahead."""


class NoiseAhead:
    """The draws of the seed contract for rows in flight. What a row will need is known when it arrives.

    In place of draw 0, the row's first input: see `id3pm.diffusion.start`.
    """

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
        self._threads = threads
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=f"noise-{stage}")
        self._draws: dict[_Draw, tuple[concurrent.futures.Future[list[FloatArray | Exception]], int]] = {}
        self._lock = threading.Lock()

    def prefetch(self, rows: Sequence[Row]) -> None:
        """Begins to draw what the rows' next steps need; from any thread."""
        with self._lock:
            wanted = [(row, draw) for row in rows if not row.answered for draw in row.next_draws]
            new = [key for key in wanted if key not in self._draws]
            self._submit(new[: max(0, self._most - len(self._draws))])

    def take(self, rows: Sequence[Row], draws: Sequence[int]) -> list[FloatArray]:
        """These draws, [3, S, S] each, which then belong to the caller; waits for those that are not ready."""
        with self._lock:
            keys = list(zip(rows, draws, strict=True))
            self._submit([key for key in keys if key not in self._draws])
            made = [self._draws.pop(key) for key in keys]
        tasks = {future: future.result(TIMEOUT_S) for future in dict.fromkeys(future for future, _ in made)}
        return [_drawn(tasks[future][place]) for future, place in made]

    def drop(self, row: Row) -> None:
        """Forgets what was drawn for a row that has ended."""
        with self._lock:
            for key in [key for key in self._draws if key[0] is row]:
                del self._draws[key]

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, keys: list[_Draw]) -> None:
        """One task for each thread: what a task costs, the sampling loop pays."""
        for part in range(min(self._threads, len(keys))):
            some = keys[part :: self._threads]
            future = self._pool.submit(self._draw, some)
            self._draws.update({key: (future, place) for place, key in enumerate(some)})

    def _draw(self, keys: list[_Draw]) -> list[FloatArray | Exception]:
        return [self._outcome(*key) for key in keys]

    def _outcome(self, row: Row, draw: int) -> FloatArray | Exception:
        """A draw, or why there is none: it is its row's own trouble."""
        try:
            drawn = noise(row.request.seed, self._stage, draw, self._shape, out=self._host(self._shape))
            if draw == 0 and row.plan.start is not None:
                drawn[...] = first_input(drawn, row.plan.start, row.request.low_res)
            return drawn
        except Exception as error:
            return error


def _drawn(outcome: FloatArray | Exception) -> FloatArray:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
