"""Requests in flight: the callers that wait for each, the end of those without a caller, and the grace of a drain.

Triton notices neither a closed HTTP connection nor, through ensembles, a cancelled gRPC call, so the gateway sends
cancels to the stages.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.request import Request
from id3pm.serving.gateway.upstream import Upstream
from id3pm.serving.protocol.served_models import FACE_MODEL, STAGE_MODELS
from id3pm.serving.protocol.wire import RequestKey

T = TypeVar("T")
CANCELLED_MODELS = (FACE_MODEL, *STAGE_MODELS.values())
_AGAIN_S, _SELDOM_S = 0.2, 1.0  # from one round of cancels to the next, at first and after a while
GRACE_S = 2.0  # longest time between the answer to the first request of an image and the second request
_CANCEL_S = 900.0  # longer than any queue; the work itself ends with its Triton process at the latest


@dataclasses.dataclass(frozen=True, eq=False)
class _Cancel:
    task: asyncio.Task[None]
    stop: asyncio.Event  # the work has ended, or it is requested again


class InFlight:
    """Counts the callers that wait for each request. A stage joins equal requests of one id: the last to go cancels."""

    def __init__(self, counters: Counters) -> None:
        self.drain_grace = DrainGrace()
        self._counters = counters
        self._callers: collections.Counter[RequestKey] = collections.Counter()
        self._cancels: dict[RequestKey, _Cancel] = {}
        self._lost: collections.defaultdict[RequestKey, set[asyncio.Future[Any]]] = collections.defaultdict(set)

    async def enter(self, key: RequestKey) -> None:
        """Adds a waiting caller.

        If an earlier request of this id is being cancelled, the cancels stop first, because its work is wanted again.
        """
        while key in self._cancels:
            self._cancels[key].stop.set()
            await asyncio.wait([self._cancels[key].task])
        self._callers[key] += 1
        self._counters.in_flight += 1

    def leave(self, key: RequestKey) -> None:
        """A caller has its answer."""
        self._counters.in_flight -= 1
        self._callers[key] -= 1
        if self._callers[key] == 0:
            del self._callers[key]

    def abandon(self, key: RequestKey, upstream: Upstream, work: asyncio.Future[Any]) -> None:
        """Removes a caller that has disconnected; after the last one, cancels are sent until the work has ended.

        Args:
            key: The request, with its owner.
            upstream: Where it was sent.
            work: Its answer to come.
        """
        self._lost[key].add(work)
        work.add_done_callback(lambda _: self._ended(key, work))
        self.leave(key)
        self._counters.disconnects += 1
        if self._callers[key] == 0:
            stop = asyncio.Event()
            task = asyncio.ensure_future(self._cancel(key, upstream, stop))
            self._cancels[key] = _Cancel(task, stop)
            task.add_done_callback(lambda _: self._cancels.pop(key))

    async def run(
        self,
        key: RequestKey,
        upstream: Upstream,
        work: Coroutine[Any, Any, T],
        held: contextlib.ExitStack | None = None,
    ) -> T:
        """Runs `work` for a caller. The task of a caller that disconnects is cancelled.

        Args:
            key: The request, with its owner.
            upstream: Where it is sent.
            work: Sends it, and gives its answer.
            held: What the request occupies. Where the caller goes, it is kept until the work ends.
        """
        try:
            await self.enter(key)
        except asyncio.CancelledError:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        try:
            answer = await outlive(task, held)
        except asyncio.CancelledError:
            self.abandon(key, upstream, task)
            raise
        except BaseException:
            self.leave(key)
            raise
        self.leave(key)
        return answer

    async def close(self) -> None:
        """Stops cancelling."""
        tasks = [cancel.task for cancel in self._cancels.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_SELDOM_S)

    def _ended(self, key: RequestKey, work: asyncio.Future[Any]) -> None:
        lost = self._lost[key]
        lost.discard(work)
        if not lost:
            del self._lost[key]
            if key in self._cancels:
                self._cancels[key].stop.set()

    async def _cancel(self, key: RequestKey, upstream: Upstream, stop: asyncio.Event) -> None:
        """Sends cancels repeatedly, because between two stages no stage knows the request.

        A stage that does not answer may do so later. If Triton is gone, the work ends, and so do the cancels.
        """
        origin = Origin(key.owner or "", "gateway")
        clock, pause_s = asyncio.get_running_loop().time, _AGAIN_S
        deadline = clock() + _CANCEL_S
        while not stop.is_set() and key in self._lost and clock() < deadline:
            await asyncio.gather(
                *(upstream.control(model, "cancel", key.id, origin=origin) for model in CANCELLED_MODELS),
                return_exceptions=True,
            )
            with contextlib.suppress(asyncio.TimeoutError):  # noqa: UP041 - another class before Python 3.11
                await asyncio.wait_for(stop.wait(), pause_s)
            pause_s = min(2.0 * pause_s, _SELDOM_S)


class DrainGrace:
    """Accepts the second stage of an image that is requested stage by stage, while the service drains.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[RequestKey, float] = {}

    def answered(self, owner: str, request: Request) -> None:
        """Work was answered with success."""
        now = self._clock()
        self._until = {name: until for name, until in self._until.items() if until > now}
        if request.model == STAGE_MODELS["base"] and request.control is None:
            self._until[RequestKey(owner, request.id)] = now + GRACE_S

    def include(self, owner: str, request: Request) -> bool:
        """Whether a request goes on with an image that was begun here; true once for each."""
        key = RequestKey(owner, request.id)
        begun = request.model == STAGE_MODELS["sr"] and request.control is None and key in self._until
        return begun and self._until.pop(key) > self._clock()

    @property
    def awaited(self) -> bool:
        """Whether any may still arrive; may be called from any thread."""
        return any(until > self._clock() for until in list(self._until.values()))


async def outlive(task: asyncio.Future[T], held: contextlib.ExitStack | None = None) -> T:
    """The result of a task that goes on where its caller is cancelled; `held` is kept until it ends."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_retrieve)
        if held is not None:
            kept = held.pop_all()
            task.add_done_callback(lambda _: kept.close())
        raise


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # no caller is left to get it
