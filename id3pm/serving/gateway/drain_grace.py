"""Drain grace: the second stage of an image that is streamed stage by stage is accepted while the service drains."""

from __future__ import annotations

import time
from collections.abc import Callable

from id3pm.serving.gateway.request import RequestInfo
from id3pm.serving.protocol.wire import RequestKey

PATIENCE_S = 2.0
"""The second request comes so soon after the answer to the first, or not at all."""
_FIRST, _SECOND = "denoiser_64", "super_resolution"


class DrainGrace:
    """Knows whose 64 px image has just been answered, so that a server that drains lets the image be finished.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[RequestKey, float] = {}

    def answered(self, owner: str, asked: RequestInfo) -> None:
        """Work was answered with success."""
        now = self._clock()
        self._until = {name: until for name, until in self._until.items() if until > now}
        if asked.model == _FIRST and asked.control is None:
            self._until[RequestKey(owner, asked.id)] = now + PATIENCE_S

    def include(self, owner: str, asked: RequestInfo) -> bool:
        """Whether a request goes on with an image that was begun here; true once for each."""
        key = RequestKey(owner, asked.id)
        begun = asked.model == _SECOND and asked.control is None and key in self._until
        return begun and self._until.pop(key) > self._clock()

    @property
    def awaited(self) -> bool:
        """Whether any may still come; asked from any thread."""
        return any(until > self._clock() for until in list(self._until.values()))
