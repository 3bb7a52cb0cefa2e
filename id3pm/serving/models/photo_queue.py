"""Queue of the face stage: a fair share for each caller, bounded in bytes and in work."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Iterable, Sequence

from id3pm.sampling.admission import has_room, overloaded
from id3pm.sampling.policy import USUAL_CLASS, standing, take_place
from id3pm.sampling.row import Place
from id3pm.serving.models.triton_backend import InferenceRequest, Reply
from id3pm.serving.protocol.limits import MAX_WAITING_PHOTO_BYTES, MAX_WAITING_PHOTO_S, MAX_WAITING_PHOTOS
from id3pm.serving.protocol.wire import RequestKey

_MAX_SLOWDOWN = 10.0  # work that took longer than this many times its estimate was held up by other work


@dataclasses.dataclass(eq=False, kw_only=True)
class PhotoRequest:
    """One request, with one photograph or several.

    Attributes:
        call: The request.
        reply: Its answer.
        size: Bytes of the photographs.
        work_s: Seconds that they are expected to take.
        exact: Whether whole files were read for that.
        arrived: `time.monotonic()` seconds.
        place: In the queue of all callers, see `id3pm.sampling.policy`.
        ended: No caller waits for it.
    """

    call: InferenceRequest
    reply: Reply
    size: int
    work_s: float
    exact: bool = False
    arrived: float = dataclasses.field(default_factory=time.monotonic)
    place: Place = Place(0.0, 0.0, 0.0, math.inf)
    ended: bool = False

    def is_named(self, key: RequestKey) -> bool:
        """Whether a control request is about it."""
        return self.call.id == key.id and key.owner in (None, self.call.owner)


class PhotoQueue:
    """Waiting requests, and the current one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[PhotoRequest] = []
        self._at_work: PhotoRequest | None = None
        self._clock = 0.0
        self._slowdown = 1.0  # seconds on this machine per estimated second

    def put(self, request: PhotoRequest) -> None:
        """Adds a request.

        Raises:
            OverloadedError: There are too many, or they are too large or too much work.
        """
        with self._lock:
            self._check_room(request)
            self._enter(request)

    def take(self) -> PhotoRequest | None:
        """The next request; `done` or `put_back` must follow."""
        with self._lock:
            if not self._waiting:
                return None
            now = time.monotonic()
            request = min(self._waiting, key=lambda waiting: standing(waiting.place, USUAL_CLASS, now))
            self._waiting.remove(request)
            self._at_work = request
            self._clock = max(self._clock, request.place.start)
            return request

    def put_back(self, request: PhotoRequest, work_s: float) -> bool:
        """Lets the current request wait again, because it is more work than it seemed; false where no other waits."""
        with self._lock:
            request.exact, request.work_s = True, work_s
            if not self._waiting or request.ended:
                return False
            self._at_work = None
            self._enter(request)
            return True

    def done(self, request: PhotoRequest, seconds: float | None) -> None:
        """The work on a request is over, after so many seconds; `None` if it failed, which is not learned from."""
        with self._lock:
            self._at_work = None
            self._clock = max(self._clock, request.place.end)
            if seconds is not None:
                self._slowdown += 0.1 * (min(seconds / request.work_s, _MAX_SLOWDOWN) - self._slowdown)

    def cancel(self, key: RequestKey) -> tuple[bool, list[PhotoRequest]]:
        """Ends requests.

        Returns:
            Whether there was any; and those that waited, which are to be answered. The current one ends by itself.
        """
        with self._lock:
            found = [request for request in self._all() if request.is_named(key)]
            return bool(found), self._end(found)

    def drop_abandoned(self) -> list[PhotoRequest]:
        """Ends requests whose callers have left; gives those that waited, which are to be answered."""
        with self._lock:
            requests = self._all()
        gone = [request for request in requests if request.reply.abandoned]
        with self._lock:
            return self._end(gone)

    @property
    def requests(self) -> int:
        """Requests in flight."""
        with self._lock:
            return len(self._all())

    @property
    def photos(self) -> int:
        """Photographs in flight."""
        with self._lock:
            return sum(request.call.rows for request in self._all())

    @property
    def backlog_s(self) -> float:
        """Seconds of work in flight."""
        with self._lock:
            return self._work_s(self._all())

    def _all(self) -> list[PhotoRequest]:
        return self._waiting if self._at_work is None else [self._at_work, *self._waiting]

    def _enter(self, request: PhotoRequest) -> None:
        own = (other.place for other in self._all() if other.call.caller == request.call.caller)
        request.place = take_place(own, self._clock, request.arrived, request.work_s, request.work_s)
        self._waiting.append(request)

    def _end(self, requests: Iterable[PhotoRequest]) -> list[PhotoRequest]:
        waited = []
        for request in requests:
            request.ended = True
            if request in self._waiting:
                self._waiting.remove(request)
                waited.append(request)
        return waited

    def _work_s(self, requests: Sequence[PhotoRequest]) -> float:
        return self._slowdown * sum(request.work_s for request in requests)

    def _check_room(self, request: PhotoRequest) -> None:
        requests = self._all()
        if not requests:  # one may be larger than all limits
            return
        own = [other for other in requests if other.call.caller == request.call.caller]
        callers = len({request.call.caller, *(other.call.caller for other in requests)})
        backlog_s, own_s = self._work_s(requests), self._work_s(own)
        sizes, own_sizes = (request.size + sum(other.size for other in some) for some in (requests, own))
        room = (
            has_room(len(requests), len(own), MAX_WAITING_PHOTOS, callers)
            and has_room(sizes, own_sizes, MAX_WAITING_PHOTO_BYTES, callers)
            and has_room(backlog_s, own_s, MAX_WAITING_PHOTO_S, callers)
        )
        if not room:
            raise overloaded(
                f"{len(requests)} requests with photographs wait, {backlog_s:.1f} s of work", backlog_s / 2
            )
