"""The parts of one gateway that its ports share, and the way of a request through them."""

from __future__ import annotations

import asyncio
import contextlib

from id3pm.serving.gateway.access_log import AccessLog
from id3pm.serving.gateway.admission import Admission
from id3pm.serving.gateway.grpc_streams import Streams
from id3pm.serving.gateway.in_flight import InFlight, outlive
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.request import Request
from id3pm.serving.gateway.upstream import Metadata, Upstreams
from id3pm.serving.launcher.health import Health


class GatewayContext:
    """The objects of the gateway's event loop.

    Attributes:
        counters: Metrics.
        upstreams: The connection to the Triton process.
        in_flight: Requests that were passed on.
        access_log: One line for each request.
        admission: Bytes and requests that are taken at a time.
        streams: Open gRPC streams.

    Args:
        options: Options of the gateway.
        health: Of the Triton process.
    """

    def __init__(self, options: GatewayOptions, health: Health) -> None:
        self.options = options
        self.health = health
        self.counters = Counters()
        self.upstreams = Upstreams(health)
        self.in_flight = InFlight(self.counters)
        self.access_log = AccessLog(options.access_log, self.counters)
        self.admission = Admission(options.max_bodies, options.max_body)
        self.streams = Streams()

    async def infer(self, request: Request, origin: Origin, metadata: Metadata, held: contextlib.ExitStack) -> bytes:
        """Triton's answer to a request: the bytes of a `ModelInferResponse`.

        Args:
            request: A checked one.
            origin: Where it comes from.
            metadata: Metadata to send.
            held: Exit stack of the request's resources until its answer is written; see `InFlight.run`.

        Raises:
            RefusedError: No new work is taken, too much is in flight, or Triton or the model answered with an error.
        """
        origin.mark(request.message)
        work, grace = request.control is None, self.in_flight.drain_grace
        upstream = self.upstreams.get(new_work=work and not grace.include(origin.owner, request))
        held.enter_context(self.admission.request(work=work))
        sent = upstream.infer_bytes(request.message, metadata=metadata)
        if not work:
            return await outlive(asyncio.ensure_future(sent), held)
        answer = await self.in_flight.run(origin.key(request.id), upstream, sent, held)
        grace.answered(origin.owner, request)
        return answer
