"""A request of the client: its call, clock and attempts. No I/O, so both clients share it."""

from __future__ import annotations

import dataclasses
import math
import random
import threading
import uuid
from typing import Generic, TypeVar

from id3pm_client._errors import (
    CancelledRequestError,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidRequestError,
    UnavailableError,
    WrongEndpointError,
)
from id3pm_client._server_pool import MOST_DOUBLINGS, Server
from id3pm_client._types import Tensors

TransportT = TypeVar("TransportT")
ErrorT = TypeVar("ErrorT", bound=ClientError)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One inference request.

    Attributes:
        model: Name of the served model.
        inputs: Input tensors, with the batch dimension.
        outputs: Names of the wanted output tensors.
        request_id: Id under which the server will know it.
        about: Id of the request that a control call is about; empty for all others.
    """

    model: str
    inputs: Tensors = dataclasses.field(repr=False)  # ID vectors and photographs, which no log should hold
    outputs: tuple[str, ...]
    request_id: str = ""
    about: str = ""

    @property
    def routed_by(self) -> str:
        """The request id by which proxies choose a server: a request and the calls about it go to the same one."""
        return self.about or self.request_id


@dataclasses.dataclass(frozen=True)
class Retry:
    """Retry policy after `UnavailableError`.

    Sending again is safe: all attempts of a request have one id, under which a server does the work once.
    The delay before retry k is random between half and all of `first_delay_s` * 2**(k-1), at most `max_delay_s`, and
    not shorter than what an overloaded server asks for. If another server is available, it gets the request at once.

    By default a request survives a restart of the server, with engines that take minutes to load, within its
    `timeout_s`.

    Attributes:
        limit: Retries of one request; 0 switches them off.
        first_contact: The same while no server has ever answered this client, because the address is probably wrong
            then.
        first_delay_s: Seconds before the first retry.
        max_delay_s: Longest delay in seconds, where the server does not ask for a longer one.
        budget: Retries that one client may make without a success in between, over all its requests; each success
            earns one back. Keeps a large batch from flooding a server that is down.
    """

    limit: int = 64
    first_delay_s: float = 0.25
    max_delay_s: float = 5.0
    budget: int = 2048
    first_contact: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kinds = (int,) if name in ("limit", "budget", "first_contact") else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise InvalidRequestError(f"Retry: {name}={value!r}: must be a number, not {type(value).__name__}")
            if not 0 <= value < math.inf:
                raise InvalidRequestError(f"Retry: {name}={value}: must be finite and not negative")

    def delay_s(self, attempt: int, requested_s: float | None = None) -> float:
        """Seconds to wait after attempt number `attempt` (1 is the first) failed.

        Args:
            attempt: How many attempts have failed.
            requested_s: Delay in seconds that the server requests, or `None`.
        """
        longest = min(self.first_delay_s * 2.0 ** min(attempt - 1, MOST_DOUBLINGS), self.max_delay_s)
        delay_s = longest * random.uniform(0.5, 1.0)
        # Random, so that requests that were refused together do not return together.
        return delay_s if requested_s is None else max(delay_s, requested_s * random.uniform(1.0, 1.25))


class RetryBudget:
    """Counts the retries of one client; thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.answered = False  # whether any server has, with an image or with an error
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


class ClientRequest(Generic[TransportT]):
    """One request from its first sending to its answer.

    All attempts are the same request under the same id: a server that still works on an earlier attempt, or has just
    answered it, does not do the work twice.

    The clock starts with the first attempt, not while the request waits in the client for a free slot.

    Attributes:
        call: The call.
        index: Position among the requests of the same call.
        server: Server of the latest attempt; `None` before the first.
        open_at: Servers that may still be working on it, because they never answered.
        due: Monotonic time in seconds at which the latest attempt's time limit ends.
        seconds: Time from the first attempt to the answer.
    """

    def __init__(
        self, call: Call, timeout_s: float, retry: Retry, budget: RetryBudget, index: int | None = None, label: str = ""
    ) -> None:
        self.call = dataclasses.replace(call, request_id=call.request_id or str(uuid.uuid4()))
        self.index = index
        self.server: Server[TransportT] | None = None
        self.open_at: list[Server[TransportT]] = []
        self.due = 0.0
        self.seconds = 0.0
        self._timeout_s = timeout_s
        self._retry = retry
        self._budget = budget
        self._label = label
        self._started: float | None = None
        self._attempts = 0
        self._was_cut = False

    @property
    def request_id(self) -> str:
        """Id under which the servers know the request."""
        return self.call.request_id

    def then(self, call: Call) -> ClientRequest[TransportT]:
        """The request of a request that follows this one: the same id, the same clock."""
        call = dataclasses.replace(call, request_id=self.request_id)
        following: ClientRequest[TransportT] = ClientRequest(call, self._timeout_s, self._retry, self._budget)
        following.count_from(self)
        return following

    def count_from(self, earlier: ClientRequest[TransportT]) -> None:
        """The time limit of this one began with that request."""
        self._started = earlier._started

    def start_attempt(self, server: Server[TransportT], now: float) -> float:
        """The next attempt begins.

        Args:
            server: Where it goes.
            now: Monotonic time in seconds.

        Returns:
            Seconds that it may take.
        """
        if self._started is None:
            self._started = now
        self.server = server
        if server not in self.open_at:
            self.open_at.append(server)
        self._attempts += 1
        left_s = max(self._left_s(now), 0.001)
        self.due = now + left_s
        return left_s

    def complete(self, now: float) -> None:
        """The answer came."""
        assert self._started is not None
        self.open_at.clear()
        self.seconds = now - self._started
        self._budget.answered = True
        self._budget.earn()

    def fail(self, error: ClientError, now: float, elsewhere: bool = False) -> float | ClientError:
        """An attempt failed.

        Args:
            error: Why.
            now: Monotonic time in seconds.
            elsewhere: Whether the next attempt can go to another server.

        Returns:
            Seconds until the next attempt, or the error that ends the request, saying which request it was: `error`
            where another attempt is useless or not allowed, `DeadlineExceededError` where no time is left for one.
        """
        if not isinstance(error, (DeadlineExceededError, ConnectionFailedError)) and self.server in self.open_at:
            self.open_at.remove(self.server)  # the server itself said that it is over
        # A server cancels an attempt whose connection broke, and with it all attempts that joined it.
        again = isinstance(error, UnavailableError) or (isinstance(error, CancelledRequestError) and self._was_cut)
        self._was_cut = isinstance(error, ConnectionFailedError)
        if isinstance(error, DeadlineExceededError):
            said = f"; the server: {error}" if error.code else ""
            error = error.reworded(f"no answer within {self._timeout_s:g} s{said}{error.note}")
        if not isinstance(error, (ConnectionFailedError, DeadlineExceededError)):
            self._budget.answered = True
        if isinstance(error, WrongEndpointError) and not self._budget.answered:
            return self.named(error)  # a restart does not help
        limit = self._retry.limit if self._budget.answered else min(self._retry.limit, self._retry.first_contact)
        if not again or self._attempts > limit or not self._budget.spend():
            return self.named(error)
        delay_s = 0.0 if elsewhere else self._retry.delay_s(self._attempts, error.retry_after_s)
        if delay_s >= self._left_s(now):
            late = DeadlineExceededError(f"no answer within {self._timeout_s:g} s; the last attempt: {error}")
            return self.named(late)
        return delay_s

    def named(self, error: ErrorT) -> ErrorT:
        """The same error, saying which request it ended."""
        return error.of_request(self.request_id, self.index, self._label)

    def age_s(self, now: float) -> float:
        """Seconds since the first attempt."""
        return 0.0 if self._started is None else now - self._started

    def _left_s(self, now: float) -> float:
        assert self._started is not None
        return self._started + self._timeout_s - now
