"""One process for each contender, so that its peak memory is its own and timings can be interleaved."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from machine import peak_rss

TIMEOUT_S = 900.0  # of building a contender, or of one turn (the first of torch.compile takes minutes)


class Worker:
    """A process with one contender; only one of them computes at a time."""

    def __init__(self, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, factory, dict(arguments)), daemon=True)
        self._process.start()
        other.close()

    def turn(self, method: str = "sample", **arguments: Any) -> Any:
        """Calls a method of the contender and waits for what it returns.

        Raises:
            RuntimeError: The contender failed, died or took too long.
        """
        return self._ask((method, arguments))

    def peak_rss(self) -> int:
        """Most bytes that the process has had in memory.

        Raises:
            RuntimeError: The process has died.
        """
        return int(self._ask(("", {})))

    def result(self) -> Any:
        """The next answer; the first says that the contender is built.

        Raises:
            RuntimeError: The contender failed, died or took too long.
        """
        if not self._connection.poll(TIMEOUT_S):
            raise RuntimeError(f"no answer in {TIMEOUT_S:g} s")
        try:
            kind, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(10)
            raise RuntimeError(f"the process died with exit code {self._process.exitcode}") from None
        if kind == "error":
            raise RuntimeError(value)
        return value

    def _ask(self, question: tuple[str, dict[str, Any]]) -> Any:
        with contextlib.suppress(OSError):  # it has died: reading its answer tells how
            self._connection.send(question)
        return self.result()

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
            connection.send(("result", getattr(contender, method)(**given) if method else peak_rss()))
    except EOFError:
        return
    except Exception as error:
        connection.send(("error", f"{type(error).__name__}: {error}"))


class Rounds(NamedTuple):
    """What the turns returned, one entry per round for every worker, and why others have failed."""

    turns: dict[str, list[Any]]
    failed: dict[str, str]


def interleaved(workers: Mapping[str, Worker], seconds: float, least: int, most: int) -> Rounds:
    """Rounds in which each process has one turn.

    A first round warms up, unread; the next tells how many there is time for. A worker that fails has no more turns.

    Args:
        workers: By name.
        seconds: For all rounds but the first.
        least: Rounds, whatever they take.
        most: Rounds.
    """
    failed: dict[str, str] = {}
    _round(workers, failed)
    rounds = [_timed_round(workers, failed)]
    affordable = int(seconds / rounds[0][0])
    rounds += [_timed_round(workers, failed) for _ in range(min(most, max(least, affordable)) - 1)]
    names = [name for name in workers if name not in failed]
    return Rounds({name: [answers[name] for _, answers in rounds] for name in names}, failed)


def _timed_round(workers: Mapping[str, Worker], failed: dict[str, str]) -> tuple[float, dict[str, Any]]:
    started = time.perf_counter()
    answers = _round(workers, failed)
    return time.perf_counter() - started, answers


def _round(workers: Mapping[str, Worker], failed: dict[str, str]) -> dict[str, Any]:
    answers = {}
    for name, worker in workers.items():
        if name in failed:
            continue
        try:
            answers[name] = worker.turn()
        except RuntimeError as error:
            failed[name] = str(error)
    return answers


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """The median, and half the range relative to it."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / 2 / median
