"""Health of the Triton process: written by the supervisor, read by the gateway."""

from __future__ import annotations

import dataclasses
import enum
import threading
import time

from id3pm.serving.protocol.status import RefusedError

_USUAL_START_S = 5.0  # seconds of a start, until one has been measured
_DRAINED_S = 10.0  # seconds until a caller without another server may find the next one here


class Phase(enum.Enum):
    """Phase of a service between its start and its end."""

    STARTING = "starting"
    SERVING = "serving"
    RESTARTING = "being restarted"
    DRAINING = "draining and takes no new requests"
    ENDED = "stopped"


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Addresses of one Triton process, each `host:port` or `unix:PATH`; a restarted one has others."""

    http: str
    grpc: str
    metrics: str


class Health:
    """Phase and addresses of the Triton process, and the error for callers that have to wait."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.addresses: Addresses | None = None
        self.restarts = 0
        self.dropped_lines = 0  # lines for the operator that could not be written
        self.suspicion = threading.Event()  # set where Triton seems to be unhealthy: check now
        self._lock = threading.Lock()  # guards changes of the phase, which depend on the phase
        self._since = time.monotonic()
        self._usual_start_s = _USUAL_START_S

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return self.phase is Phase.SERVING

    def starts(self) -> None:
        """A Triton process is about to be started; the last one, if any, has ended."""
        self.addresses = None
        self._since = time.monotonic()

    def serves(self, addresses: Addresses) -> None:
        """Triton is ready; does not undo a drain that began meanwhile."""
        self._usual_start_s = time.monotonic() - self._since
        self.addresses = addresses
        with self._lock:
            if self.phase in (Phase.STARTING, Phase.RESTARTING):
                self.phase = Phase.SERVING

    def breaks(self) -> None:
        """Triton is unhealthy and will be replaced."""
        with self._lock:
            if self.phase is Phase.SERVING:
                self.phase = Phase.RESTARTING
                self._since = time.monotonic()

    def drains(self) -> None:
        """From now on no new work is taken."""
        with self._lock:
            self.phase = Phase.DRAINING

    def ends(self) -> None:
        """The service is over."""
        with self._lock:
            self.phase = Phase.ENDED

    def drops_line(self) -> None:
        """A line of the log could not be written."""
        with self._lock:
            self.dropped_lines += 1

    def require(self, *, new_work: bool = True) -> Addresses:
        """The addresses of Triton.

        Args:
            new_work: Whether the request is for work; while draining, only questions about work in flight are answered.

        Raises:
            RefusedError: No request can be served now; the message says when to retry.
        """
        addresses = self.addresses
        if addresses is None or not (self.ready or (self.phase is Phase.DRAINING and not new_work)):
            raise self.unavailable()
        return addresses

    def unavailable(self) -> RefusedError:
        """The refusal of a request that cannot be served now, or was lost with a Triton process."""
        if self.ready:  # Triton ended, and the supervisor has not noticed yet: this wakes it
            self.suspicion.set()
        state = Phase.RESTARTING.value if self.ready else self.phase.value
        wait_s = round(self._wait_s())
        return RefusedError("unavailable", f"the server is {state}: retry after {wait_s} s", retry_after_s=wait_s)

    def _wait_s(self) -> float:
        if self.phase in (Phase.DRAINING, Phase.ENDED):
            return _DRAINED_S
        left_s = self._usual_start_s - (0.0 if self.ready else time.monotonic() - self._since)
        return max(1.0, left_s)
