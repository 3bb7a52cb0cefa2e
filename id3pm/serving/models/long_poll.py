"""Long polls: a thread answers `watch` requests at the next step."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence

from id3pm.sampling.admission import has_room
from id3pm.serving.models.triton_backend import Reply
from id3pm.serving.protocol.limits import MAX_WATCH_S, MAX_WATCHERS
from id3pm.serving.protocol.wire import RequestKey, strings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Watch:
    """One `watch` request that waits.

    Attributes:
        request: The request that is watched.
        after_step: It is answered when an unfinished row has made more steps than this.
        preview: Whether the answer has pictures.
        reply: The answer.
        caller: The caller that its place is counted to.
        until: `time.monotonic()` seconds at which it is answered in any case.
    """

    request: RequestKey
    after_step: int
    preview: bool
    reply: Reply
    caller: str = ""
    until: float = dataclasses.field(default_factory=lambda: time.monotonic() + MAX_WATCH_S)


class LongPolls:
    """Answers each watch as soon as there is news, or after `MAX_WATCH_S` without news.

    Args:
        news: Whether a request is over, or a row of it that is not done has made more than so many steps.
        state: The answer, with pictures or without.
    """

    def __init__(
        self, news: Callable[[RequestKey, int], bool], state: Callable[[RequestKey, bool], dict[str, object]]
    ) -> None:
        self._news = news
        self._state = state
        self._woken = threading.Condition()  # guards the next three
        self._waiting: list[Watch] = []
        self._changed = self._closing = False
        self._thread = threading.Thread(target=self._loop, name="long_polls", daemon=True)
        self._thread.start()

    def add(self, watch: Watch) -> None:
        """Takes a watch. Where too many wait already, or the server stops, it is answered at once, without pictures.

        Their encoding belongs to this object's thread: the one that calls here takes all requests of the stage.
        """
        with self._woken:
            if self._has_room(watch.caller) and not self._closing:
                self._waiting.append(watch)
                self._changed = True
                self._woken.notify()
                return
        self._answer([dataclasses.replace(watch, preview=False)])

    def _has_room(self, caller: str) -> bool:
        callers = collections.Counter(watch.caller for watch in self._waiting)
        callers[caller] += 1
        return has_room(callers.total(), callers[caller], MAX_WATCHERS, len(callers))

    def changed(self) -> None:
        """Something has made a step or has ended. Costs next to nothing where no poll waits."""
        if self._waiting:
            with self._woken:
                self._changed = True
                self._woken.notify()

    def close(self) -> None:
        """Answers all polls, and ends the thread."""
        with self._woken:
            self._closing = True
            self._woken.notify()
        self._thread.join(timeout=MAX_WATCH_S)

    def _loop(self) -> None:
        while not self._closing:
            with self._woken:
                if not (self._changed or self._closing):
                    end = min((watch.until for watch in self._waiting), default=None)
                    self._woken.wait(None if end is None else max(0.0, end - time.monotonic()))
                self._changed = False
                waiting = list(self._waiting)
            self._check(waiting)
        with self._woken:
            rest, self._waiting = self._waiting, []
        self._answer(rest)

    def _check(self, waiting: list[Watch]) -> None:
        now = time.monotonic()
        ready = [watch for watch in waiting if watch.until <= now or self._is_new(watch)]
        with self._woken:
            self._waiting = [watch for watch in self._waiting if watch not in ready]
        self._answer(ready)

    def _is_new(self, watch: Watch) -> bool:
        try:
            return self._news(watch.request, watch.after_step)
        except Exception:  # one watch must not end the thread that answers them all; its own answer will say why
            logger.exception("looking for news of a request failed")
            return True

    def _answer(self, ready: Sequence[Watch]) -> None:
        states: dict[tuple[RequestKey, bool], dict[str, object]] = {}  # a picture is encoded once for all watches
        for watch in ready:
            key = (watch.request, watch.preview)
            try:
                if key not in states:
                    states[key] = self._state(*key)
                watch.reply.send({"status": strings([json.dumps(states[key])])})
            except Exception as error:  # the others are still to be answered
                watch.reply.fail(error)
