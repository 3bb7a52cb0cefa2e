"""Requests on their way: who waits for which, and the end of those for which nobody waits any more.

Triton notices neither a closed HTTP connection nor, through ensembles, a cancelled gRPC call, so the stages are told.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Coroutine
from typing import Any, TypeVar

from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.upstream import Upstream
from id3pm.serving.launcher.preflight import STAGE_MODELS

T = TypeVar("T")
_AGAIN_S, _SELDOM_S = 0.2, 1.0  # from one round of cancels to the next, at first and after a while
_PATIENCE_S = 900.0  # longer than any queue; the work itself ends with its Triton process at the latest


@dataclasses.dataclass(frozen=True, eq=False)
class _Cancel:
    task: asyncio.Task[None]
    stop: asyncio.Event  # the work has ended, or somebody asks for it again


class Flights:
    """Counts the callers of every request id. A stage joins equal requests of one id, so the last one to go cancels."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._callers: collections.Counter[str] = collections.Counter()
        self._cancels: dict[str, _Cancel] = {}
        self._lost: collections.defaultdict[str, set[asyncio.Future[Any]]] = collections.defaultdict(set)

    async def enter(self, request_id: str) -> None:
        """A caller asks for work.

        Where an earlier request of this id is being cancelled, that ends first: what has been found is over, and what
        has not is not looked for any more, for it is wanted again.
        """
        while request_id in self._cancels:
            self._cancels[request_id].stop.set()
            await asyncio.wait([self._cancels[request_id].task])
        self._callers[request_id] += 1
        self._counters.in_flight += 1

    def leave(self, request_id: str) -> None:
        """A caller has its answer."""
        self._counters.in_flight -= 1
        self._callers[request_id] -= 1
        if self._callers[request_id] == 0:
            del self._callers[request_id]

    def abandon(self, request_id: str, upstream: Upstream, work: asyncio.Future[Any]) -> None:
        """A caller has gone; where it was the last one, the stages are told until the work of all has ended.

        Args:
            request_id: The request.
            upstream: Where it was sent.
            work: Its answer to come.
        """
        self._lost[request_id].add(work)
        work.add_done_callback(lambda _: self._ended(request_id, work))
        self.leave(request_id)
        self._counters.disconnects += 1
        if self._callers[request_id] == 0:
            stop = asyncio.Event()
            task = asyncio.ensure_future(self._cancel(request_id, upstream, stop))
            self._cancels[request_id] = _Cancel(task, stop)
            task.add_done_callback(lambda _: self._cancels.pop(request_id))

    async def fly(
        self,
        request_id: str,
        upstream: Upstream,
        work: Coroutine[Any, Any, T],
        held: contextlib.ExitStack | None = None,
    ) -> T:
        """Runs `work` for a caller that may go (whose task is cancelled then).

        Args:
            request_id: The request.
            upstream: Where it is sent.
            work: Sends it, and gives its answer.
            held: What the request occupies. Where the caller goes, it is taken from him and kept until the work ends.
        """
        try:
            await self.enter(request_id)
        except asyncio.CancelledError:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        try:
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_retrieve)
            if held is not None:
                kept = held.pop_all()
                task.add_done_callback(lambda _: kept.close())
            self.abandon(request_id, upstream, task)
            raise
        except BaseException:
            self.leave(request_id)
            raise
        self.leave(request_id)
        return answer

    async def close(self) -> None:
        """Waits for no more cancels."""
        tasks = [cancel.task for cancel in self._cancels.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, request_id: str, work: asyncio.Future[Any]) -> None:
        lost = self._lost[request_id]
        lost.discard(work)
        if not lost:
            del self._lost[request_id]
            if request_id in self._cancels:
                self._cancels[request_id].stop.set()

    async def _cancel(self, request_id: str, upstream: Upstream, stop: asyncio.Event) -> None:
        """Between two stages, or waiting for the face stage, a request is known to none: hence again and again.

        A stage that does not answer may do so later; a Triton that is gone ends the work, and this with it.
        """
        clock, pause_s = asyncio.get_running_loop().time, _AGAIN_S
        deadline = clock() + _PATIENCE_S
        while not stop.is_set() and request_id in self._lost and clock() < deadline:
            await asyncio.gather(
                *(upstream.control(model, "cancel", request_id) for model in STAGE_MODELS.values()),
                return_exceptions=True,
            )
            with contextlib.suppress(asyncio.TimeoutError):  # noqa: UP041 - another class before Python 3.11
                await asyncio.wait_for(stop.wait(), pause_s)
            pause_s = min(2.0 * pause_s, _SELDOM_S)


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody is left to hear of it
