"""The request registry of a stage, by owner and id: an equal second request joins the first or gets its answer."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.serving.models.logs import shown
from id3pm.serving.models.triton_backend import InferenceRequest, Reply
from id3pm.serving.protocol.limits import KEPT_BYTES, KEPT_S
from id3pm.serving.protocol.options import RowOptions
from id3pm.serving.protocol.wire import OPTIONS_BY_NAME, Array, RequestKey

Outputs = Mapping[str, Array]
Outcome = list[Sample] | Exception
ENTRY_BYTES = 4096
"""Bytes of an answer besides its tensors: its id, hash and objects; so many small ones are bounded too."""


class PendingRows:
    """Collects the samples of one request; calls back once, with all of them or with the first error.

    Args:
        rows: How many there are.
        on_outcome: Called once, from the thread that brings the last sample or the first error.
    """

    def __init__(self, rows: int, on_outcome: Callable[[Outcome], object]) -> None:
        self._rows = rows
        self._on_outcome = on_outcome
        self._lock = threading.Lock()
        self._samples: dict[int, Sample] = {}
        self._over = False
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether the request has ended with an error."""
        with self._lock:
            return self._failed

    def collector(self, row: int) -> Callable[[Sample | Id3pmError], None]:
        """The `on_done` of a row for the scheduler."""

        def collect(outcome: Sample | Id3pmError) -> None:
            if isinstance(outcome, Exception):
                self.end(outcome)
                return
            with self._lock:
                self._samples[row] = outcome
                if self._over or len(self._samples) < self._rows:
                    return
                self._over = True
            self._on_outcome([self._samples[index] for index in range(self._rows)])

        return collect

    def end(self, error: Exception) -> None:
        """Ends the request with an error, unless it is over already."""
        with self._lock:
            if self._over:
                return
            self._over = self._failed = True
        self._on_outcome(error)


@dataclasses.dataclass(eq=False, kw_only=True)
class RegisteredRequest:
    """One request, and all callers that wait for its answer.

    Attributes:
        name: The id that its sender chose, or one made up.
        content: Hash of everything that determines the answer, or `None` without an id of the sender.
        call: The request.
        requests: Its rows, for the scheduler.
        pending: Collects the rows' outcomes.
        replies: One for each caller that waits.
        submitted: The scheduler has its rows, or had them.
        arrived: `time.monotonic()` seconds.
    """

    name: str
    content: bytes | None
    call: InferenceRequest
    requests: Sequence[SampleRequest]
    pending: PendingRows
    replies: list[Reply]
    submitted: bool = False
    arrived: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def owner(self) -> str:
        """Owner of the id; all unknown callers are one owner."""
        return self.call.owner or ""

    @property
    def abandoned(self) -> bool:
        """Whether no caller waits any more, as far as Triton knows."""
        return all(reply.abandoned for reply in self.replies)


@dataclasses.dataclass(frozen=True, eq=False)
class _Answer:
    content: bytes
    outputs: Outputs
    size: int
    until: float


class RequestRegistry:
    """Requests in flight, and the answers of the last minute as far as `KEPT_BYTES` go. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: dict[str, dict[str, RegisteredRequest]] = {}  # by id, then by owner
        self._unanswered = 0
        # by owner and id, the oldest first
        self._kept: collections.OrderedDict[tuple[str, str], _Answer] = collections.OrderedDict()
        self._kept_bytes = 0

    def enter(self, registered: RegisteredRequest) -> RegisteredRequest | Outputs:
        """Takes a request with its one reply.

        Returns:
            The request itself, which is now in flight; or the one of the same id and content that it has joined; or
            the answer that such a one got a moment ago.

        Raises:
            InvalidInputError: One of the same id and other content is in flight.
        """
        with self._lock:
            first = self._in_flight.get(registered.name, {}).get(registered.owner)
            if first is not None and not first.pending.failed:  # a failed request is not joined: the work starts again
                if first.content != registered.content:
                    raise InvalidInputError(
                        f"request id {shown(registered.name)} is in flight already with other inputs: choose unique ids"
                    )
                first.replies.extend(registered.replies)
                return first
            self._forget_old()
            answer = self._kept.get((registered.owner, registered.name))
            if answer is not None and answer.content == registered.content:
                return answer.outputs
            self._in_flight.setdefault(registered.name, {})[registered.owner] = registered
            self._unanswered += 1
            return registered

    def leave(self, registered: RegisteredRequest, outputs: Outputs | None) -> list[Reply]:
        """Ends a request, with its outputs or, where it failed, without; its id is free from now on.

        Returns:
            The replies to send. Afterwards, `answered` must be called.
        """
        with self._lock:
            owners = self._in_flight.get(registered.name, {})
            if owners.get(registered.owner) is registered:
                del owners[registered.owner]
                if not owners:
                    del self._in_flight[registered.name]
            if outputs is not None and registered.content is not None:
                self._keep((registered.owner, registered.name), registered.content, outputs)
            return list(registered.replies)

    def answered(self) -> None:
        """All callers of a request that has left have their answer."""
        with self._lock:
            self._unanswered -= 1

    def find(self, key: RequestKey) -> list[RegisteredRequest]:
        """The request of this id that is in flight; of several owners where none is named."""
        with self._lock:
            owners = self._in_flight.get(key.id, {})
            if key.owner is None:
                return list(owners.values())
            return [owners[key.owner]] if key.owner in owners else []

    def all(self) -> list[RegisteredRequest]:
        """All requests in flight."""
        with self._lock:
            return [registered for owners in self._in_flight.values() for registered in owners.values()]

    @property
    def unanswered(self) -> int:
        """Requests in flight, or done and about to be answered."""
        with self._lock:
            return self._unanswered

    def _keep(self, key: tuple[str, str], content: bytes, outputs: Outputs) -> None:
        size = ENTRY_BYTES + sum(_size(array) for array in outputs.values())
        if key in self._kept:
            self._kept_bytes -= self._kept.pop(key).size
        self._kept[key] = _Answer(content, outputs, size, time.monotonic() + KEPT_S)
        self._kept_bytes += size
        self._forget_old()

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._kept and (self._kept_bytes > KEPT_BYTES or next(iter(self._kept.values())).until < now):
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size


def content_of(call: InferenceRequest, rows: Sequence[RowOptions]) -> bytes:
    """A hash of everything that determines the answer: data, parsed options, outputs; not priority and time limit."""
    digest = hashlib.sha256(repr(sorted(call.wanted)).encode())
    for name, tensor in sorted(call.tensors.items()):
        if name not in OPTIONS_BY_NAME:  # options may come as parameters as well; the rows hold them
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(repr(tensor.tolist()).encode() if tensor.dtype == object else tensor.tobytes())
    for row in rows:
        digest.update(repr((row.seed, row.options)).encode())
        digest.update(b"" if row.attributes is None else row.attributes.tobytes())
    return digest.digest()


def _size(array: Array) -> int:
    return sum(len(value) for value in array.flat) if array.dtype == object else array.nbytes
