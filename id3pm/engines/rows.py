"""Runs the rows of a call one by one, one core each: faster on a CPU than one batch.

A batch of images does not fit into the caches between two layers, but one image does, and threads that share no work do
not wait for each other. A row's bits also cannot depend on the other rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class RowWorkers:
    """Threads for the rows of one engine's calls.

    Args:
        threads: How many, or `None` for one per core that this process may use.
    """

    def __init__(self, threads: int | None) -> None:
        self.count = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="rows")

    def each(self, rows: int, run: Callable[[int], None]) -> None:
        """Calls `run` with every row's number; raises what it raises. A single row stays in the caller's thread."""
        if rows == 1 or self.count == 1:
            for row in range(rows):
                run(row)
            return
        for _ in self._pool.map(run, range(rows)):
            pass

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()
