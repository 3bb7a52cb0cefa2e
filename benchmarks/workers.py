"""Every contender in a process of its own: its peak memory is its own, and turns can be interleaved."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT_S = 600.0  # of building a contender (torch.compile takes a minute), or of one turn


class Worker:
    """A process with one contender; only the one whose turn it is computes."""

    def __init__(self, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, factory, dict(arguments)), daemon=True)
        self._process.start()
        other.close()

    def turn(self, method: str = "sample", **arguments: Any) -> Any:
        """Calls a method of the contender and waits for what it returns."""
        self._connection.send((method, arguments))
        return self.result()

    def result(self) -> Any:
        """The next answer.

        Raises:
            RuntimeError: The contender failed or took too long.
        """
        if not self._connection.poll(TIMEOUT_S):
            raise RuntimeError(f"no answer in {TIMEOUT_S:g} s")
        kind, value = self._connection.recv()
        if kind == "error":
            raise RuntimeError(value)
        return value

    def peak_rss(self) -> int:
        """Most bytes that the process has had in memory."""
        self._connection.send(("", {}))
        return int(self.result())

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join(10)


def _work(connection: Connection, factory: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        contender = factory(**arguments)
        connection.send(("built", None))
        while True:
            method, given = connection.recv()
            if method:
                connection.send(("result", getattr(contender, method)(**given)))
            else:
                connection.send(("result", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    except EOFError:
        return
    except Exception as error:
        connection.send(("error", f"{type(error).__name__}: {error}"))


def interleaved(workers: Mapping[str, Worker], repeats: int) -> dict[str, list[Any]]:
    """What each worker's turns return, in rounds in which everyone has one turn; a first round warms up, unread."""
    for worker in workers.values():
        worker.turn()
    results: dict[str, list[Any]] = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            results[name].append(worker.turn())
    return results


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """The median, and half the range relative to it."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / 2 / median
