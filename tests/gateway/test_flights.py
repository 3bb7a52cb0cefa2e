"""Nobody works for nobody, and nobody's work is ended while somebody still waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from id3pm.gateway.counters import Counters
from id3pm.gateway.flights import Flights
from id3pm.gateway.refusal import RefusedError


class Triton:
    """One request in stages that know of it from the n-th round of cancels on."""

    def __init__(self, known_from: int = 0) -> None:
        self.known_from = known_from
        self.cancels: list[tuple[str, str]] = []
        self.work: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def control(self, model: str, *words: str) -> dict[str, Any]:
        assert words[0] == "cancel"
        self.cancels.append((model, words[1]))
        found = model == "super_resolution" and len(self.cancels) > 2 * self.known_from
        if found and not self.work.done():
            self.work.set_exception(RefusedError("CANCELLED", "the request was cancelled"))
        return {"id": words[1], "found": found}

    async def infer(self) -> str:
        return await asyncio.shield(self.work)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def start(flights: Flights, triton: Any) -> asyncio.Task[str]:
    task = asyncio.ensure_future(flights.fly("a", triton, triton.infer()))
    await asyncio.sleep(0.01)
    return task


async def go_away(task: asyncio.Task[str]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_answered_request_is_told_to_nobody() -> None:
    async def play() -> None:
        counters = Counters()
        flights, triton = Flights(counters), Triton()
        task = await start(flights, triton)
        assert counters.in_flight == 1
        triton.work.set_result("image")
        assert await task == "image"
        await flights.close()
        assert (counters.in_flight, counters.disconnects, triton.cancels) == (0, 0, [])

    asyncio.run(play())


def test_a_caller_that_goes_cancels_both_stages() -> None:
    async def play() -> None:
        counters = Counters()
        flights, triton = Flights(counters), Triton()
        await go_away(await start(flights, triton))
        await until(triton.work.done)
        assert set(triton.cancels) == {("denoiser_64", "a"), ("super_resolution", "a")}
        assert (counters.in_flight, counters.disconnects) == (0, 1)
        await flights.close()

    asyncio.run(play())


def test_a_request_between_two_stages_is_cancelled_when_the_next_one_knows_it() -> None:
    async def play() -> None:
        flights, triton = Flights(Counters()), Triton(known_from=2)
        await go_away(await start(flights, triton))
        await until(triton.work.done)
        assert len(triton.cancels) == 6
        await flights.close()

    asyncio.run(play())


def test_while_another_caller_waits_for_the_same_request_it_goes_on() -> None:
    async def play() -> None:
        flights, triton = Flights(Counters()), Triton()
        first, second = await start(flights, triton), await start(flights, triton)
        await go_away(first)
        await asyncio.sleep(0.05)
        assert triton.cancels == []
        triton.work.set_result("image")
        assert await second == "image"
        await flights.close()

    asyncio.run(play())


def test_a_retry_of_the_same_id_starts_after_the_cancel_has_arrived() -> None:
    async def play() -> None:
        flights, triton = Flights(Counters()), Triton(known_from=1)
        await go_away(await start(flights, triton))
        again = Triton()
        retry = asyncio.ensure_future(flights.fly("a", again, again.infer()))  # type: ignore[arg-type]
        await until(triton.work.done)
        await asyncio.sleep(0.02)
        again.work.set_result("image")
        assert await retry == "image"
        assert again.cancels == []
        await flights.close()

    asyncio.run(play())


def test_a_triton_that_is_gone_needs_no_cancel() -> None:
    class Gone(Triton):
        async def control(self, model: str, *words: str) -> dict[str, Any]:
            self.cancels.append((model, words[1]))
            raise RefusedError("UNAVAILABLE", "the server is being restarted: retry after 1 s")

    async def play() -> None:
        flights, triton = Flights(Counters()), Gone()
        await go_away(await start(flights, triton))
        await asyncio.sleep(0.5)
        assert len(triton.cancels) == 2
        triton.work.set_exception(RefusedError("UNAVAILABLE", "gone"))
        await flights.close()

    asyncio.run(play())
