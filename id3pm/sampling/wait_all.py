"""Submits many requests and waits for their results, for callers in this process."""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from id3pm.errors import Id3pmError
from id3pm.sampling.request import SampleRequest

T = TypeVar("T")


def collect(
    requests: Sequence[SampleRequest],
    submit: Callable[[SampleRequest, Callable[[T | Id3pmError], None]], None],
    cancel: Callable[[str], object],
) -> list[T]:
    """Submits all requests and waits for their results, in order; the first error cancels the others.

    Args:
        requests: With ids that are unique.
        submit: Of a scheduler or a cascade: takes a request and the callback for its result or error.
        cancel: Of the same: ends the request of an id, and ignores ids that are done.

    Raises:
        Id3pmError: The first error that a request ended with, or that `submit` raised.
    """
    results: dict[int, T] = dict(arrivals(requests, submit, cancel))
    return [results[index] for index in range(len(requests))]


def arrivals(
    requests: Sequence[SampleRequest],
    submit: Callable[[SampleRequest, Callable[[T | Id3pmError], None]], None],
    cancel: Callable[[str], object],
) -> Iterator[tuple[int, T]]:
    """As `collect`, but each result as soon as it is there, with the position of its request.

    A caller that leaves early cancels the others.
    """
    done: queue.SimpleQueue[tuple[int, T | Id3pmError]] = queue.SimpleQueue()
    try:
        for index, request in enumerate(requests):
            submit(request, functools.partial(_put, done, index))
        for _ in requests:
            index, outcome = done.get()
            if isinstance(outcome, Id3pmError):
                raise outcome
            yield index, outcome
    finally:
        for request in requests:
            cancel(request.id)


def _put(done: queue.SimpleQueue[tuple[int, T | Id3pmError]], index: int, outcome: T | Id3pmError) -> None:
    done.put((index, outcome))
