"""Requests on their way: who waits for which, and the end of those for which nobody waits any more.

Triton notices neither a closed HTTP connection nor, through ensembles, a cancelled gRPC call, so the stages are told.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Coroutine
from typing import Any, TypeVar

from id3pm.gateway.counters import Counters
from id3pm.gateway.refusal import RefusedError
from id3pm.gateway.upstream import Upstream
from id3pm.serving.preflight import STAGE_MODELS

T = TypeVar("T")
_AGAIN_S = 0.2
_PATIENCE_S = 10.0


class Flights:
    """Counts the callers of every request id. A stage joins equal requests of one id, so the last one to go cancels."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._callers: collections.Counter[str] = collections.Counter()
        self._cancels: dict[str, asyncio.Task[None]] = {}

    async def enter(self, request_id: str) -> None:
        """A caller asks for work; waits while an earlier request of this id is being cancelled."""
        while request_id in self._cancels:
            await asyncio.wait([self._cancels[request_id]])
        self._callers[request_id] += 1
        self._counters.in_flight += 1

    def leave(self, request_id: str) -> None:
        """A caller has its answer."""
        self._counters.in_flight -= 1
        self._callers[request_id] -= 1
        if self._callers[request_id] == 0:
            del self._callers[request_id]

    def abandon(self, request_id: str, upstream: Upstream, work: asyncio.Future[Any] | None = None) -> None:
        """A caller has gone; where it was the last one, the stages are told until they know.

        Args:
            request_id: The request.
            upstream: Where it was sent.
            work: Its answer to come, where there is one: then nobody needs to be told any more.
        """
        self.leave(request_id)
        self._counters.disconnects += 1
        if self._callers[request_id] == 0:
            task = asyncio.ensure_future(self._cancel(request_id, upstream, work))
            self._cancels[request_id] = task
            task.add_done_callback(lambda _: self._cancels.pop(request_id))

    async def fly(self, request_id: str, upstream: Upstream, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` for a caller that may go (whose task is cancelled then)."""
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
            self.abandon(request_id, upstream, task)
            raise
        except BaseException:
            self.leave(request_id)
            raise
        self.leave(request_id)
        return answer

    async def close(self) -> None:
        """Waits for no more cancels."""
        for task in tuple(self._cancels.values()):
            task.cancel()
        await asyncio.gather(*self._cancels.values(), return_exceptions=True)

    async def _cancel(self, request_id: str, upstream: Upstream, work: asyncio.Future[Any] | None) -> None:
        """Between two stages, or on its way to the first, a request is known to none: hence again and again."""
        work = asyncio.get_running_loop().create_future() if work is None else work
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while not work.done() and asyncio.get_running_loop().time() < deadline:
            answers = await asyncio.gather(
                *(upstream.control(model, "cancel", request_id) for model in STAGE_MODELS.values()),
                return_exceptions=True,
            )
            if any(isinstance(answer, RefusedError) for answer in answers):
                return  # that Triton has gone, and the work with it
            if any(isinstance(answer, dict) and answer.get("found") for answer in answers):
                return
            await asyncio.wait([work], timeout=_AGAIN_S)


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody is left to hear of it
