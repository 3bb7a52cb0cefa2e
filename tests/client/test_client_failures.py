"""Retries, deadlines and cancellation of both clients."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from id3pm_client import (
    AsyncClient,
    Call,
    Client,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    OverloadedError,
    Retry,
)

VECTOR = np.ones(4)
QUICK = Retry(limit=3, first_delay_s=0.002, max_delay_s=0.01)
STAGES = {"denoiser_64", "super_resolution"}


def cancelled(server: Any) -> set[str]:
    """Ids that were cancelled at both stages."""
    at = {stage: {i for model, op, i in server.controls if (model, op) == (stage, "cancel")} for stage in STAGES}
    assert at["denoiser_64"] == at["super_resolution"]
    return at["denoiser_64"]


def failing(server: Any, fails: Callable[[Call], bool], error: Exception) -> None:
    good = server.answer

    def answer(call: Call) -> Any:
        if fails(call):
            raise error
        return good(call)

    server.answer = answer


def seed_of(call: Call) -> int:
    return int(call.inputs["seed"][0, 0])


def test_no_more_requests_are_on_the_way_than_allowed(make_client: Any, server: Any) -> None:
    server.delay_s = lambda call: 0.005
    assert len(make_client(max_in_flight=3).generate(VECTOR, range(12))) == 12
    assert server.most_in_flight == 3


def test_the_first_failure_stops_the_others_and_says_which_image_it_was(make_client: Any, server: Any) -> None:
    server.delay_s = lambda call: 0.01 if seed_of(call) == 12 else 60.0
    failing(server, lambda call: seed_of(call) == 12, InvalidRequestError("steps=0: must be between 1 and 1000"))
    start = time.monotonic()
    with pytest.raises(InvalidRequestError, match=r"^image 2 \(seed 12\): steps=0: must be between 1 and 1000$") as e:
        make_client(max_in_flight=4).generate(VECTOR, [10, 11, 12, 13, 14, 15])
    assert time.monotonic() - start < 5.0
    assert e.value.index == 2
    assert server.seeds() == [10, 11, 12, 13], "what had not been sent stays unsent"
    given_up = {call.request_id for call in server.calls if seed_of(call) != 12}
    assert set(server.given_up) == given_up
    assert cancelled(server) == given_up, "the failed one needs no cancel, its neighbours do, at both stages"
    assert e.value.request_id == server.calls[2].request_id
    assert server.in_flight == 0


def test_a_single_failure_has_no_index(client: Any, server: Any) -> None:
    failing(server, lambda call: True, InternalServerError("engine failed"))
    with pytest.raises(InternalServerError, match="^engine failed$") as caught:
        client.generate(VECTOR, 1)
    assert caught.value.index is None
    assert caught.value.request_id == server.calls[0].request_id
    assert server.controls == []


def test_a_client_works_on_after_a_failure(make_client: Any, server: Any) -> None:
    client = make_client(max_in_flight=2)
    good = server.answer
    failing(server, lambda call: True, InternalServerError("engine failed"))
    for _ in range(3):
        with pytest.raises(InternalServerError):
            client.generate(VECTOR, range(5))
    server.answer = good
    assert len(client.generate(VECTOR, range(5))) == 5


def test_a_silent_server_meets_the_deadline_and_is_told_to_stop(client: Any, server: Any) -> None:
    server.answer = lambda call: None
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"^no answer within 0.1 s$") as caught:
        client.generate(VECTOR, 1, timeout_s=0.1)
    assert 0.1 <= time.monotonic() - start < 2.0
    assert isinstance(caught.value, TimeoutError)
    assert cancelled(server) == {server.calls[0].request_id}


def test_retries_do_not_outlive_the_deadline(make_client: Any, server: Any) -> None:
    failing(server, lambda call: True, OverloadedError("queue full"))
    client = make_client(retry=Retry(limit=1000, first_delay_s=0.02, max_delay_s=0.02, budget=1000))
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="no answer within 0.2 s; the last attempt: queue full"):
        client.generate(VECTOR, 1, timeout_s=0.2)
    assert time.monotonic() - start < 1.0
    assert server.timeouts == sorted(server.timeouts, reverse=True), "each attempt gets what is left"
    assert server.timeouts[-1] < 0.2


def test_waiting_for_a_slot_does_not_count_against_the_deadline(make_client: Any, server: Any) -> None:
    server.delay_s = lambda call: 0.05
    assert len(make_client(max_in_flight=1, timeout_s=0.2).generate(VECTOR, range(8))) == 8


def test_an_exception_in_on_image_stops_the_work(make_client: Any, server: Any) -> None:
    server.delay_s = lambda call: 0.0 if seed_of(call) == 0 else 60.0

    def on_image(position: int, image: Any) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_client().generate(VECTOR, [0, 1], on_image=on_image)
    assert cancelled(server) == {call.request_id for call in server.calls if seed_of(call) == 1}


def test_ctrl_c_stops_the_servers_work(server: Any, sync_transport: Any) -> None:
    def answer(call: Any) -> None:
        if len(server.calls) == 2:  # both are on their way
            signal.setitimer(signal.ITIMER_REAL, 0.1)

    server.answer = answer
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), Client(transport=sync_transport) as client:
            client.generate(VECTOR, [1, 2])
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(server.given_up) == 2
    assert cancelled(server) == set(server.given_up)
    assert sync_transport.closed


def test_cancelling_the_task_stops_the_servers_work(server: Any, async_transport: Any) -> None:
    server.answer = lambda call: None

    async def main() -> None:
        async with AsyncClient(transport=async_transport) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.generate(VECTOR, [1, 2]), 0.1)

    asyncio.run(main())
    assert len(server.given_up) == 2
    assert cancelled(server) == set(server.given_up)
    assert async_transport.closed


def test_threads_share_the_slots_of_their_client(server: Any, sync_transport: Any) -> None:
    server.delay_s = lambda call: 0.005
    client = Client(transport=sync_transport, max_in_flight=2)
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.extend(image.seed for image in client.generate(VECTOR, range(5))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == sorted([*range(5)] * 4)
    assert server.most_in_flight == 2


def test_tasks_share_the_slots_of_their_client(server: Any, async_transport: Any) -> None:
    server.delay_s = lambda call: 0.005

    async def main() -> list[int]:
        async with AsyncClient(transport=async_transport, max_in_flight=2) as client:
            images = await asyncio.gather(*(client.generate(VECTOR, seed) for seed in range(10)))
        return [image.seed for image in images]

    assert asyncio.run(main()) == list(range(10))
    assert server.most_in_flight == 2
