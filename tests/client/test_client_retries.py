"""When and how a request is sent again; for both clients."""

from __future__ import annotations

import collections
import time
from typing import Any

import pytest

from id3pm_client import (
    Call,
    CancelledRequestError,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    OverloadedError,
    Retry,
    UnavailableError,
)
from id3pm_client._errors import error_from_status
from tests.client.test_client_failures import QUICK, VECTOR, failing, seed_of


@pytest.mark.parametrize("error", [OverloadedError("queue full"), ConnectionFailedError("Socket closed")])
def test_an_unavailable_server_is_asked_again_under_the_same_id(
    make_client: Any, server: Any, error: Exception
) -> None:
    failing(server, lambda call: len(server.calls) <= 2, error)
    image = make_client(retry=QUICK).generate(VECTOR, 1)
    assert image.seed == 1
    assert len(server.calls) == 3
    assert {call.request_id for call in server.calls} == {image.request_id}


def test_a_server_is_left_alone_for_as_long_as_it_asks(make_client: Any, server: Any) -> None:
    failing(server, lambda call: len(server.calls) == 1, OverloadedError("12 s of work wait", retry_after_s=0.15))
    start = time.monotonic()
    assert make_client(retry=QUICK).generate(VECTOR, 1).seed == 1
    assert 0.15 <= time.monotonic() - start < 2.0


def test_who_cannot_wait_that_long_hears_it_at_once(make_client: Any, server: Any) -> None:
    failing(server, lambda call: True, OverloadedError("the queue is full; retry after 60 s", retry_after_s=60))
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="no answer within 5 s; the last attempt: .* retry after 60 s"):
        make_client(retry=QUICK).generate(VECTOR, 1, timeout_s=5)
    assert time.monotonic() - start < 2.0
    assert len(server.calls) == 1


def test_a_deadline_that_cannot_be_met_is_no_reason_to_try_again_or_to_spare_the_server(
    make_client: Any, server: Any
) -> None:
    refusal = error_from_status(
        "DEADLINE_EXCEEDED",
        "the deadline cannot be met: 5 s are left, and the steps alone take 90 s",
        [("id3pm-code", "deadline_exceeded")],
    )
    failing(server, lambda call: seed_of(call) == 1, refusal)
    client = make_client(retry=QUICK)
    with pytest.raises(DeadlineExceededError, match="no answer within 5 s; the server: .* the steps alone take 90 s"):
        client.generate(VECTOR, 1, timeout_s=5)
    assert len(server.calls) == 1
    assert all(one.unavailable_until == 0.0 for one in client._server_pool.servers)


def test_retries_end_at_their_limit(make_client: Any, server: Any) -> None:
    failing(server, lambda call: True, OverloadedError("queue full"))
    with pytest.raises(OverloadedError, match="queue full"):
        make_client(retry=QUICK).generate(VECTOR, 1)
    assert len(server.calls) == 1 + QUICK.limit


def test_what_is_not_unavailable_is_not_sent_again(make_client: Any, server: Any) -> None:
    failing(server, lambda call: True, InternalServerError("engine failed"))
    with pytest.raises(InternalServerError):
        make_client(retry=QUICK).generate(VECTOR, 1)
    assert len(server.calls) == 1


def test_a_batch_does_not_hammer_a_server_that_is_down(make_client: Any, server: Any) -> None:
    failing(server, lambda call: True, ConnectionFailedError("failed to connect"))
    retry = Retry(limit=100, first_delay_s=0.001, max_delay_s=0.002, budget=5)
    with pytest.raises(ConnectionFailedError, match="image"):
        make_client(retry=retry, max_in_flight=4).generate(VECTOR, range(50))
    assert len(server.calls) <= 4 + 5


def test_successes_earn_the_budget_back(make_client: Any, server: Any) -> None:
    refused: set[int] = set()

    def first_time(call: Call) -> bool:
        new = seed_of(call) not in refused
        refused.add(seed_of(call))
        return new

    failing(server, first_time, OverloadedError("queue full"))
    client = make_client(retry=Retry(first_delay_s=0.001, budget=1), max_in_flight=1)
    for seed in range(6):
        assert client.generate(VECTOR, seed).seed == seed


def test_delays_grow_with_jitter_up_to_their_limit() -> None:
    retry = Retry(first_delay_s=0.1, max_delay_s=0.5)
    for attempt, longest in [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (50, 0.5)]:
        delays = [retry.delay_s(attempt) for _ in range(200)]
        assert longest / 2 <= min(delays) < max(delays) <= longest


def test_delays_are_not_shorter_than_what_is_asked_for_and_differ() -> None:
    retry = Retry(first_delay_s=0.1, max_delay_s=0.5)
    delays = {retry.delay_s(1, requested_s=8.0) for _ in range(200)}
    assert 8.0 <= min(delays) < max(delays) <= 10.0
    assert min(retry.delay_s(4, requested_s=0.01) for _ in range(50)) >= 0.25, "a hint never shortens the delay"


def defaults_without_their_delays() -> Retry:
    return Retry(first_delay_s=0.001, max_delay_s=0.001)


@pytest.mark.parametrize("error", [ConnectionFailedError("failed to connect"), UnavailableError("being restarted")])
def test_by_default_a_large_batch_outlives_a_server_that_is_away_for_minutes(
    make_client: Any, server: Any, error: ClientError
) -> None:
    patience_s = sum(min(0.25 * 2.0**attempt, 5.0) * 0.75 for attempt in range(Retry().limit))
    assert patience_s > 180.0
    client = make_client(retry=defaults_without_their_delays())
    assert client.generate(VECTOR, 0).seed == 0
    attempts = collections.Counter[int]()

    def away(call: Call) -> bool:
        attempts[seed_of(call)] += 1
        return attempts[seed_of(call)] <= 50

    failing(server, away, error)
    assert [image.seed for image in client.generate(VECTOR, range(1, 33))] == list(range(1, 33))


def test_a_server_that_has_never_answered_is_given_up_soon(make_client: Any, server: Any) -> None:
    failing(server, lambda call: True, ConnectionFailedError("failed to connect"))
    with pytest.raises(ConnectionFailedError):
        make_client(retry=defaults_without_their_delays()).generate(VECTOR, 1)
    assert len(server.calls) == 1 + Retry().first_contact == 9


@pytest.mark.parametrize("name", ["limit", "first_delay_s", "max_delay_s", "budget", "first_contact"])
def test_a_negative_retry_setting_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name}=-1"):
        Retry(**{name: -1})  # type: ignore[arg-type]


def test_a_cancel_that_was_meant_for_a_broken_attempt_is_not_the_end(make_client: Any, server: Any) -> None:
    """A gateway cancels work whose caller has gone, and with it the attempt that has just joined it."""
    errors = [ConnectionFailedError("Socket closed"), CancelledRequestError("the request was cancelled")]
    good = server.answer

    def answer(call: Call) -> Any:
        if errors:
            raise errors.pop(0)
        return good(call)

    server.answer = answer
    client = make_client(retry=QUICK)
    assert client.generate(VECTOR, 1).seed == 1
    errors.append(CancelledRequestError("the request was cancelled"))
    with pytest.raises(CancelledRequestError):
        client.generate(VECTOR, 2)
