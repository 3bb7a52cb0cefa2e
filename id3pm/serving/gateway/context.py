"""What the HTTP port and the gRPC port share."""

from __future__ import annotations

import dataclasses

from id3pm.serving.gateway.access_log import AccessLog
from id3pm.serving.gateway.admission import Admission
from id3pm.serving.gateway.auth import Access
from id3pm.serving.gateway.drain_grace import DrainGrace
from id3pm.serving.gateway.in_flight import InFlight
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.upstream import Upstreams
from id3pm.serving.launcher.health import Health


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatewayContext:
    """The parts of one gateway; all belong to its event loop.

    Attributes:
        health: Of the Triton process.
        upstreams: The connection to it.
        in_flight: Requests that were passed on.
        counters: Metrics.
        access: Tokens and what each allows.
        access_log: One line for each request.
        admission: Bytes and requests that are taken at a time.
        drain_grace: Second stages that are accepted while the service drains.
    """

    health: Health
    upstreams: Upstreams
    in_flight: InFlight
    counters: Counters
    access: Access
    access_log: AccessLog
    admission: Admission
    drain_grace: DrainGrace
