"""Calls of the asyncio client that are on their way, and their outcomes."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from types import TracebackType

from id3pm_client import _base as base
from id3pm_client._aio_io import AsyncQueue, submit
from id3pm_client._errors import ClientError, DeadlineExceededError
from id3pm_client._request import Call
from id3pm_client._transport import GRACE_S, SETTLE_S, AsyncTransport, Outcome


def _nothing() -> None:
    """There is nothing to do."""


@dataclasses.dataclass(eq=False)
class _Sent:
    """A call that was sent: its key, when its outcome counts as missing, what cancels it, what its loss means."""

    key: int
    due: float
    on_lost: Callable[[], None]
    cancel: Callable[[], object] = _nothing


class AsyncPendingCalls:
    """Calls without an outcome; on leaving the context, those that are left are given up, a little later.

    async with AsyncPendingCalls() as pending:
        pending.send(transport, call, timeout_s=5.0, key=0)
        arrived = await pending.next()
    """

    def __init__(self, registry: set[base.Wakeable] | None = None) -> None:
        """Registers itself for as long as it is entered."""
        self._registry: set[base.Wakeable] = set() if registry is None else registry
        self._sent: dict[int, _Sent] = {}
        self._arrived: AsyncQueue[tuple[_Sent | None, Outcome | BaseException | None]] = AsyncQueue()

    async def __aenter__(self) -> AsyncPendingCalls:
        self._registry.add(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._registry.discard(self)
        for sent in self._sent.values():
            sent.on_lost()
        await self._collect(SETTLE_S)
        for sent in self._sent.values():
            sent.cancel()
        await self._collect(GRACE_S)

    def __len__(self) -> int:
        return len(self._sent)

    def send(
        self,
        transport: AsyncTransport,
        call: Call,
        timeout_s: float,
        key: int,
        on_lost: Callable[[], None] = _nothing,
    ) -> None:
        """Sends a call.

        Args:
            transport: The wire.
            call: What is sent.
            timeout_s: Seconds until the transport itself gives up.
            key: Comes back with the outcome; no other call that is on its way has it.
            on_lost: Called if `next` will not return the outcome.
        """
        sent = self._sent[key] = _Sent(key, time.monotonic() + timeout_s + GRACE_S, on_lost)
        try:
            sent.cancel = submit(transport, call, timeout_s, functools.partial(self._put, sent))
        except BaseException:
            del self._sent[key]
            on_lost()
            raise

    async def next(self, until: float = math.inf) -> tuple[int, Outcome] | None:
        """The next outcome, with the key of its call.

        A call whose transport stays silent for `GRACE_S` beyond its time limit counts as `DeadlineExceededError`.

        Args:
            until: Monotonic time in seconds; needed where no call is on its way.

        Returns:
            `None` where there is none until then, or `wake` was called.
        """
        while True:
            first = min(self._sent.values(), key=lambda sent: sent.due, default=None)
            arrived = await self._arrived.get(until if first is None else min(until, first.due))
            if arrived is None:
                if first is None or first.due > until:
                    return None
                first.cancel()
                self._take(first)
                return first.key, DeadlineExceededError(base.NO_OUTCOME)
            sent, outcome = arrived
            if sent is None or outcome is None:
                return None
            if not self._take(sent):
                continue  # it counted as missing
            if isinstance(outcome, BaseException) and not isinstance(outcome, ClientError):
                sent.on_lost()
                raise outcome
            return sent.key, outcome

    def wake(self) -> None:
        """Lets `next` return."""
        self._arrived.put((None, None))

    async def _collect(self, timeout_s: float) -> None:
        """Waits for the outcomes of the calls, which nothing needs any more."""
        until = time.monotonic() + timeout_s
        while self._sent and (arrived := await self._arrived.get(until)) is not None:
            self._take(arrived[0])

    def _put(self, sent: _Sent, outcome: Outcome | BaseException) -> None:
        self._arrived.put((sent, outcome))

    def _take(self, sent: _Sent | None) -> bool:
        """The call is no longer on its way; false where it was not."""
        if sent is None or self._sent.get(sent.key) is not sent:
            return False
        del self._sent[sent.key]
        return True
