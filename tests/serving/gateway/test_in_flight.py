"""Work without a waiting caller is cancelled; work with one is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import id3pm.serving.gateway.in_flight as flights_module
from id3pm.serving.gateway.in_flight import InFlight
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.protocol.status import RefusedError
from id3pm.serving.protocol.wire import RequestKey

A = RequestKey("owner", "a")


class Triton:
    """One request in stages that know of it from the n-th round of cancels on."""

    def __init__(self, known_from: int = 0) -> None:
        self.known_from = known_from
        self.cancels: list[tuple[str, str]] = []
        self.work: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
        assert words[0] == "cancel"
        self.cancels.append((model, words[1]))
        found = model == "super_resolution" and len(self.cancels) > 3 * self.known_from
        if found and not self.work.done():
            self.work.set_exception(RefusedError("cancelled", "the request was cancelled"))
        return {"id": words[1], "found": found}

    async def infer(self) -> str:
        return await asyncio.shield(self.work)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def start(in_flight: InFlight, triton: Any) -> asyncio.Task[str]:
    task = asyncio.ensure_future(in_flight.run(A, triton, triton.infer()))
    await asyncio.sleep(0.01)
    return task


async def go_away(task: asyncio.Task[str]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_answered_request_is_told_to_nobody() -> None:
    async def play() -> None:
        counters = Counters()
        in_flight, triton = InFlight(counters), Triton()
        task = await start(in_flight, triton)
        assert counters.in_flight == 1
        triton.work.set_result("image")
        assert await task == "image"
        await in_flight.close()
        assert (counters.in_flight, counters.disconnects, triton.cancels) == (0, 0, [])

    asyncio.run(play())


def test_a_caller_that_goes_cancels_all_stages() -> None:
    async def play() -> None:
        counters = Counters()
        in_flight, triton = InFlight(counters), Triton()
        await go_away(await start(in_flight, triton))
        await until(triton.work.done)
        assert set(triton.cancels) == {("face_embedding", "a"), ("denoiser_64", "a"), ("super_resolution", "a")}
        assert (counters.in_flight, counters.disconnects) == (0, 1)
        await in_flight.close()

    asyncio.run(play())


def test_a_request_between_two_stages_is_cancelled_when_the_next_one_knows_it() -> None:
    async def play() -> None:
        in_flight, triton = InFlight(Counters()), Triton(known_from=2)
        await go_away(await start(in_flight, triton))
        await until(triton.work.done)
        assert len(triton.cancels) == 9
        await in_flight.close()

    asyncio.run(play())


def test_while_another_caller_waits_for_the_same_request_it_goes_on() -> None:
    async def play() -> None:
        in_flight, triton = InFlight(Counters()), Triton()
        first, second = await start(in_flight, triton), await start(in_flight, triton)
        await go_away(first)
        await asyncio.sleep(0.05)
        assert triton.cancels == []
        triton.work.set_result("image")
        assert await second == "image"
        await in_flight.close()

    asyncio.run(play())


def test_a_retry_of_the_same_id_waits_for_the_cancel_that_is_on_its_way() -> None:
    class Slow(Triton):
        async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
            answer = await super().control(model, *words, origin=origin)
            await asyncio.sleep(0.1)
            return answer

    async def play() -> None:
        in_flight, triton, again = InFlight(Counters()), Slow(), Triton()
        await go_away(await start(in_flight, triton))
        began = asyncio.get_running_loop().time()
        retry = asyncio.ensure_future(in_flight.run(A, again, again.infer()))  # type: ignore[arg-type]
        again.work.set_result("image")
        assert await retry == "image"
        assert triton.work.done() and asyncio.get_running_loop().time() - began > 0.05
        assert again.cancels == []
        await in_flight.close()

    asyncio.run(play())


def test_what_is_wanted_again_is_not_looked_for_any_more() -> None:
    """A photograph in the queue of the face stage: who comes back with its id joins it."""

    async def play() -> None:
        counters = Counters()
        in_flight, triton = InFlight(counters), Triton(known_from=1000)
        await go_away(await start(in_flight, triton))
        retry = await start(in_flight, triton)
        await asyncio.sleep(0.5)
        assert len(triton.cancels) == 3, "none after the retry"
        triton.work.set_result("image")
        assert await retry == "image" and counters.in_flight == 0
        await in_flight.close()

    asyncio.run(play())


def test_a_request_is_looked_for_as_long_as_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits long for the face stage, and meanwhile a stage refuses to answer: it is found all the same."""
    monkeypatch.setattr(flights_module, "_SELDOM_S", 0.02)
    monkeypatch.setattr(flights_module, "_AGAIN_S", 0.01)

    class Busy(Triton):
        async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
            if model == "denoiser_64":
                self.cancels.append((model, words[1]))
                raise RefusedError("deadline_exceeded", "Deadline Exceeded")
            return await super().control(model, *words, origin=origin)

    async def play() -> None:
        in_flight, triton = InFlight(Counters()), Busy(known_from=30)
        await go_away(await start(in_flight, triton))
        await until(triton.work.done)
        await in_flight.close()

    asyncio.run(play())


def test_nobody_is_left_who_samples_for_nobody() -> None:
    """A caller goes, comes back, and goes again: both of its requests are ended, whichever arrives first."""

    async def play() -> None:
        in_flight, first, second = InFlight(Counters()), Triton(known_from=1), Triton(known_from=1)

        async def control(model: str, *words: str, origin: Origin) -> dict[str, Any]:
            one = await Triton.control(first, model, *words, origin=origin)
            return one if not first.work.done() else await Triton.control(second, model, *words, origin=origin)

        triton: Any = SimpleNamespace(control=control)
        for one in (first, second):
            task = asyncio.ensure_future(in_flight.run(A, triton, one.infer()))
            await asyncio.sleep(0.01)
            await go_away(task)
        await until(lambda: first.work.done() and second.work.done())
        await in_flight.close()

    asyncio.run(play())


def test_work_that_ended_with_its_triton_needs_no_cancel() -> None:
    class Gone(Triton):
        async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
            self.cancels.append((model, words[1]))
            if not self.work.done():
                self.work.set_exception(RefusedError("unavailable", "gone"))
            raise RefusedError("unavailable", "the server is being restarted: retry after 1 s")

    async def play() -> None:
        in_flight, triton = InFlight(Counters()), Gone()
        await go_away(await start(in_flight, triton))
        await asyncio.sleep(0.5)
        assert len(triton.cancels) == 3
        await in_flight.close()

    asyncio.run(play())
