"""One request on its way: what is sent, its clock, its retries. No I/O, so both clients share it."""

from __future__ import annotations

import dataclasses
import random
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from id3pm_client._errors import (
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidRequestError,
    UnavailableError,
)

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One inference request.

    Attributes:
        model: Name of the served model.
        inputs: Input tensors, with the batch dimension.
        outputs: Names of the wanted output tensors.
        request_id: Id under which the server will know it.
    """

    model: str
    inputs: Tensors
    outputs: tuple[str, ...]
    request_id: str = ""


@dataclasses.dataclass(frozen=True)
class Retry:
    """How `UnavailableError` is answered. Sending again is safe: a request is a pure function of its content.

    The delay before retry k is random between half and all of `first_delay_s` * 2**(k-1), at most `max_delay_s`.

    Attributes:
        limit: Retries of one request; 0 switches them off.
        first_delay_s: Seconds before the first retry.
        max_delay_s: Longest delay in seconds.
        budget: Retries that one client may make without a success in between, over all its requests; each success
            earns one back. Keeps a large batch from hammering a server that is down.
    """

    limit: int = 4
    first_delay_s: float = 0.25
    max_delay_s: float = 5.0
    budget: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise InvalidRequestError(f"Retry: {name}={value}: must not be negative")

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` (1 is the first) failed."""
        longest = min(self.first_delay_s * 2.0 ** (attempt - 1), self.max_delay_s)
        return longest * random.uniform(0.5, 1.0)


class RetryBudget:
    """Counts the retries of one client; thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._left = capacity
        self._lock = threading.Lock()

    def spend(self) -> bool:
        """Takes one retry out of the budget; false where it is used up."""
        with self._lock:
            if self._left == 0:
                return False
            self._left -= 1
            return True

    def earn(self) -> None:
        """Puts one retry back after a success."""
        with self._lock:
            self._left = min(self._left + 1, self._capacity)


class Flight:
    """One request from its first sending to its answer.

    The clock starts with the first attempt, not while the request waits in the client for a free slot.

    Attributes:
        index: Position among the requests of the same call.
        open_ids: Request ids that the server may still be working on, because it never answered them.
        seconds: Time from the first attempt to the answer.
    """

    def __init__(
        self, call: Call, timeout_s: float, retry: Retry, budget: RetryBudget, index: int | None = None, label: str = ""
    ) -> None:
        self.index = index
        self.open_ids: list[str] = []
        self.seconds = 0.0
        self._call = call
        self._timeout_s = timeout_s
        self._retry = retry
        self._budget = budget
        self._label = label
        self._started: float | None = None
        self._attempts = 0

    @property
    def request_id(self) -> str:
        """Id of the latest attempt."""
        return self._call.request_id

    def take_off(self, now: float) -> tuple[Call, float]:
        """The next attempt: what to send, and how many seconds it may take.

        Every attempt has an id of its own, because the server may still know the one before.

        Args:
            now: Monotonic time in seconds.
        """
        if self._started is None:
            self._started = now
        self._call = dataclasses.replace(self._call, request_id=str(uuid.uuid4()))
        self.open_ids.append(self.request_id)
        self._attempts += 1
        return self._call, max(self._left_s(now), 0.001)

    def land(self, now: float) -> None:
        """The answer came."""
        assert self._started is not None
        self.open_ids.clear()
        self.seconds = now - self._started
        self._budget.earn()

    def fail(self, error: ClientError, now: float) -> float | ClientError:
        """An attempt failed.

        Returns:
            Seconds until the next attempt, or the error that ends the flight, saying which request it was: `error`
            where another attempt is useless or not allowed, `DeadlineExceededError` where no time is left for one.
        """
        if not isinstance(error, (DeadlineExceededError, ConnectionFailedError)):
            self.open_ids.remove(self.request_id)  # the server itself said that it is over
        if isinstance(error, DeadlineExceededError):
            error = DeadlineExceededError(f"no answer within {self._timeout_s:g} s")
        if not isinstance(error, UnavailableError) or self._attempts > self._retry.limit or not self._budget.spend():
            return error.of_request(self.request_id, self.index, self._label)
        delay_s = self._retry.delay_s(self._attempts)
        if delay_s >= self._left_s(now):
            late = DeadlineExceededError(f"no answer within {self._timeout_s:g} s; the last attempt: {error}")
            return late.of_request(self.request_id, self.index, self._label)
        return delay_s

    def _left_s(self, now: float) -> float:
        assert self._started is not None
        return self._started + self._timeout_s - now
