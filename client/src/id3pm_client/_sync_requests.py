"""Sends the requests of the blocking client: connections, slots, attempts, streams."""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import heapq
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import TypeAlias, TypeVar

from id3pm_client import _base as base
from id3pm_client._bar import Bar
from id3pm_client._connection import Connection
from id3pm_client._errors import (
    CancelledRequestError,
    ClientError,
    DeadlineExceededError,
)
from id3pm_client._grpc import GrpcTransport
from id3pm_client._request import Call, ClientRequest, Tensors
from id3pm_client._server_pool import Server
from id3pm_client._steps import ASK_TIMEOUT_S, EVERY_S, Steps
from id3pm_client._stream import WATCH_TIMEOUT_S, Event, StageRequest, Streaming
from id3pm_client._transport import GRACE_S, Outcome, SyncTransport

logger = logging.getLogger("id3pm_client")
Self = TypeVar("Self", bound="SyncRequests")
Answers: TypeAlias = "queue.SimpleQueue[tuple[int, Outcome]]"
_ANSWER, _WATCH = 0, 1
_GIVEN_UP = CancelledRequestError("given up")
_SLOT_S = 1.0  # a thread that waits for a slot looks so often whether the client was closed
_OPEN: weakref.WeakSet[SyncRequests] = weakref.WeakSet()


class SyncRequests(base.BaseClient[SyncTransport]):
    """Keeps the connections, sends requests and waits for them; the calls are `Client`'s."""

    def _open(self, connection: Connection) -> SyncTransport:
        return GrpcTransport(connection)

    def _prepare(self) -> None:
        self._slots = threading.BoundedSemaphore(self.max_in_flight)
        self._closing = threading.Event()
        _OPEN.add(self)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards.

        What is under way in other threads ends with `ClosedClientError`, and the servers are told to stop their work on
        it, which takes up to 1 s where one does not answer. The end of the interpreter closes a client as well.
        """
        self._close(base.CANCEL_TIMEOUT_S)

    def _close(self, timeout_s: float) -> None:
        calls = self._mark_closed()
        self._closing.set()
        _OPEN.discard(self)
        try:
            self._ask(calls, timeout_s)
        finally:
            for server in self._server_pool.servers:
                server.transport.close()

    def _run(self, requests: Sequence[ClientRequest[SyncTransport]], on_answer: Callable[[int, Tensors], None]) -> None:
        """Sends all requests, as many at once as there are slots; the first failure gives up the others.

        A request keeps its slot until it has completed, so one that waits for its next attempt holds back new ones.
        """
        self._check_open()
        answers: Answers = queue.SimpleQueue()
        unsent = collections.deque(range(len(requests)))
        again: list[tuple[float, int]] = []  # a heap: when to send which request once more
        sent: dict[int, Callable[[], None]] = {}
        slots = 0

        def send(position: int) -> None:
            sent[position] = self._send(requests[position], answers, position)

        try:
            while unsent or slots:
                # Other threads may hold all slots: wait for one only where no answer of our own can free one.
                while unsent and self._slots.acquire(timeout=0 if slots else _SLOT_S):
                    slots += 1
                    send(unsent.popleft())
                if not slots:
                    self._check_open()
                    continue
                while again and again[0][0] <= time.monotonic():
                    send(heapq.heappop(again)[1])
                if not sent:
                    self._pause(requests[again[0][1]], again[0][0] - time.monotonic())
                    continue
                overdue = min(sent, key=lambda position: requests[position].due)
                wait_s = _left_s(requests[overdue].due)
                if again:
                    wait_s = min(wait_s, max(again[0][0] - time.monotonic(), 0.0))
                try:
                    position, outcome = answers.get(timeout=wait_s)
                except queue.Empty:
                    if _left_s(requests[overdue].due) > 0.0:
                        continue
                    sent[overdue]()
                    position, outcome = overdue, DeadlineExceededError(base.NO_OUTCOME)
                del sent[position]
                self._give_back(requests[position], _error(outcome))
                delay_s = self._judge(requests[position], outcome)
                if delay_s is not None:
                    heapq.heappush(again, (time.monotonic() + delay_s, position))
                else:
                    assert not isinstance(outcome, ClientError)
                    self._slots.release()
                    slots -= 1
                    on_answer(position, outcome)
        except BaseException:
            for position, give_up in sent.items():
                give_up()
                self._give_back(requests[position], _GIVEN_UP)
            self._stop_work(requests)
            raise
        finally:
            self._in_flight.difference_update(requests)
            for _ in range(slots):
                self._slots.release()

    @contextlib.contextmanager
    def _followed(
        self, requests: Sequence[ClientRequest[SyncTransport]], bar: Bar | None
    ) -> Generator[None, None, None]:
        """Shows meanwhile how far the requests are, and what they wait for."""
        if bar is None:
            yield
            return
        steps, over = Steps(requests, self.urls, bar), threading.Event()

        def follow() -> None:
            while not over.wait(EVERY_S):
                with contextlib.suppress(ClientError):
                    outcomes = [] if self._closed else self._ask(steps.questions(), ASK_TIMEOUT_S)
                    if not over.is_set():
                        steps.read(outcomes, self._waiting, self._budget.answered)

        thread = threading.Thread(target=follow, name="id3pm-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=ASK_TIMEOUT_S + GRACE_S)

    def _run_stage(self, streaming: Streaming[SyncTransport]) -> Generator[Event, None, None]:
        """Both stages of a stream. No slot is taken: a caller that holds a stream may request other images."""
        self._check_open()
        try:
            first = streaming.first()
            yield from self._stage_request(first, None)
            second = streaming.second(first.tensors)
            yield from self._stage_request(second, first.request.server)
            yield streaming.image()
        except BaseException:  # also where the caller leaves
            self._stop_work(streaming.requests)
            raise
        finally:
            self._in_flight.difference_update(streaming.requests)

    def _stage_request(
        self, current: StageRequest[SyncTransport], prefer: Server[SyncTransport] | None
    ) -> Generator[Event, None, None]:
        """One stage: its events; its answer is in `current` afterwards."""
        delay_s: float | None = 0.0
        while delay_s is not None:
            self._pause(current.request, delay_s)
            answers: Answers = queue.SimpleQueue()
            give_up = self._send(current.request, answers, _ANSWER, prefer)
            try:
                current.begin()
                outcome = yield from self._follow(current, answers)
            except BaseException:
                give_up()
                self._give_back(current.request, _GIVEN_UP)
                raise
            self._give_back(current.request, _error(outcome))
            delay_s = self._judge(current.request, outcome)
            if not isinstance(outcome, ClientError):
                current.tensors = outcome

    def _follow(self, current: StageRequest[SyncTransport], answers: Answers) -> Generator[Event, None, Outcome]:
        """Yields the progress of an attempt until its outcome is there, and returns that."""
        while current.waiting:
            yield current.waiting.pop(0)
        assert current.request.server is not None
        wire = current.request.server.transport
        due: float | None = time.monotonic()  # when to ask; `None` while a question is on its way, or none is left
        stop_asking: Callable[[], None] = _nothing
        try:
            while True:
                if due is not None and due <= time.monotonic():
                    due = None
                    if not self._closed:
                        put = functools.partial(_put, answers, _WATCH)
                        stop_asking = wire.submit(current.question(), WATCH_TIMEOUT_S, put)
                limit_s = _left_s(current.request.due)
                try:
                    what, outcome = answers.get(
                        timeout=limit_s if due is None else min(limit_s, max(due - time.monotonic(), 0.0))
                    )
                except queue.Empty:
                    if _left_s(current.request.due) > 0.0:
                        continue
                    what, outcome = _ANSWER, DeadlineExceededError(base.NO_OUTCOME)
                if what == _ANSWER:
                    return outcome
                progress, wait_s = current.read(outcome)
                if progress is not None:
                    yield progress
                due = None if wait_s is None else time.monotonic() + wait_s
        finally:
            stop_asking()

    def _send(
        self,
        request: ClientRequest[SyncTransport],
        answers: Answers,
        mark: int,
        prefer: Server[SyncTransport] | None = None,
    ) -> Callable[[], None]:
        """Sends the next attempt of a request; its outcome comes with `mark`. Returns what gives it up."""
        server, timeout_s = self._start_attempt(request, prefer)
        try:
            return server.transport.submit(request.call, timeout_s, functools.partial(_put, answers, mark))
        except BaseException:
            self._give_back(request, _GIVEN_UP)
            raise

    def _pause(self, request: ClientRequest[SyncTransport], delay_s: float) -> None:
        """Waits for the next attempt of a request; closing the client ends it."""
        self._closing.wait(max(delay_s, 0.0))
        self._check_open(request)

    def _stop_work(self, requests: Sequence[ClientRequest[SyncTransport]]) -> None:
        calls = [] if self._closed else base.cancel_calls(requests)
        for (server, call), outcome in zip(calls, self._ask(calls, base.CANCEL_TIMEOUT_S), strict=True):
            logger.debug("cancel at %s of %s: %s", call.model, server.url, outcome)

    def _ask(self, calls: Sequence[tuple[Server[SyncTransport], Call]], timeout_s: float) -> list[Outcome]:
        """Sends control calls at once, past the slots, and collects the answers in order."""
        answers: Answers = queue.SimpleQueue()
        due = time.monotonic() + timeout_s
        for position, (server, call) in enumerate(calls):
            server.transport.submit(call, timeout_s, functools.partial(_put, answers, position))
        outcomes: dict[int, Outcome] = {}
        with contextlib.suppress(queue.Empty):
            while len(outcomes) < len(calls):
                position, outcome = answers.get(timeout=_left_s(due))
                outcomes[position] = outcome
        return [outcomes.get(position, DeadlineExceededError(base.NO_OUTCOME)) for position in range(len(calls))]


def _put(answers: Answers, position: int, outcome: Outcome) -> None:
    answers.put((position, outcome))


def _left_s(due: float) -> float:
    """Seconds until an outcome that is due at this monotonic time counts as missing."""
    return max(due + GRACE_S - time.monotonic(), 0.0)


@atexit.register
def _close_all() -> None:
    """Ends all streams that are still open while the transports' threads run; later, no thread would answer them."""
    end = time.monotonic() + base.CANCEL_TIMEOUT_S
    for client in list(_OPEN):
        with contextlib.suppress(Exception):  # the interpreter ends, whatever a server says
            client._close(max(end - time.monotonic(), 0.0))


def _error(outcome: Outcome) -> ClientError | None:
    return outcome if isinstance(outcome, ClientError) else None


def _nothing() -> None:
    """No question has been asked yet."""
