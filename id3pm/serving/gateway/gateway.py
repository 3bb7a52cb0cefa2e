"""The public ports: HTTP, gRPC and metrics, in one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from id3pm.errors import ConfigError, ServerError
from id3pm.serving.gateway.access_log import AccessLog
from id3pm.serving.gateway.admission import Admission
from id3pm.serving.gateway.auth import Access
from id3pm.serving.gateway.bodies import BodyReader
from id3pm.serving.gateway.connections import Connections, Shares, raise_descriptor_limit
from id3pm.serving.gateway.context import GatewayContext
from id3pm.serving.gateway.drain_grace import DrainGrace
from id3pm.serving.gateway.grpc_connections import GrpcConnections
from id3pm.serving.gateway.grpc_server import RpcGateway
from id3pm.serving.gateway.grpc_streams import Streams
from id3pm.serving.gateway.http_listener import HttpListener
from id3pm.serving.gateway.http_server import HttpGateway
from id3pm.serving.gateway.in_flight import InFlight
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.tls import Tls
from id3pm.serving.gateway.upstream import Upstreams
from id3pm.serving.launcher.health import Health
from id3pm.serving.protocol import limits

logger = logging.getLogger(__name__)
_START_S = 30.0
_PING_MS = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """What an operator decides.

    Attributes:
        max_body: Bytes of a request body or gRPC message.
        max_bodies: Bytes of all bodies in flight.
        body_s: Seconds for a body to arrive.
        write_s: Seconds for a caller to take what it is sent.
        access: Who may send what.
        tls: Certificate and key for HTTP and gRPC, or `None` for plain text.
        allow_origins: Origins of web pages that browsers let send requests; `*` is all.
        access_log: File of the access log, `-` for stderr, or `None` for none.
    """

    max_body: int = limits.MAX_BODY
    max_bodies: int = limits.MAX_BODIES
    body_s: float = limits.BODY_S
    write_s: float = limits.WRITE_S
    access: Access = dataclasses.field(default_factory=Access)
    tls: Tls | None = None
    allow_origins: tuple[str, ...] = ()
    access_log: str | None = None

    def __post_init__(self) -> None:
        """Raises `ConfigError` where a number has no meaning."""
        for name, least, most in (
            ("max_body", 1024, 2**31 - 1),  # gRPC counts in 32 bits
            ("max_bodies", 1024, 2**40),
            ("body_s", 0.001, 86_400.0),
            ("write_s", 0.001, 86_400.0),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name}={value}: must be between {least} and {most}")


class Gateway:
    """Listens from `start` to `stop`, whatever becomes of Triton meanwhile.

    Args:
        host: Address to listen on.
        ports: `http-port`, `grpc-port` and `metrics-port`, none of them 0.
        health: What the supervisor knows of Triton.
        options: See there.
    """

    def __init__(self, host: str, ports: Mapping[str, int], health: Health, options: GatewayOptions) -> None:
        self.counters = Counters()
        self.drain_grace = DrainGrace()
        self._host = host
        self._ports = ports
        self._health = health
        self._options = options
        self._listening = threading.Event()
        self._error: BaseException | None = None
        self._shares = Shares.of(raise_descriptor_limit())
        self._admission: Admission | None = None
        self._streams = Streams()
        self._access_log = AccessLog(options.access_log, self.counters)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether work or an answer to it is on its way, or the second request of an image may still come."""
        writing = self._streams.at_work or (self._admission is not None and self._admission.work > 0)
        return writing or self.drain_grace.awaited or self.counters.in_flight > 0

    def start(self) -> None:
        """Returns when all ports listen.

        Raises:
            ServerError: A port cannot be opened.
            ConfigError: Certificate and key are unusable.
        """
        self._thread.start()
        if not self._listening.wait(_START_S):
            raise ServerError(f"the ports on {self._host} did not open within {_START_S:g} s")
        if self._error is not None:
            raise self._error

    def reopen_log(self) -> None:
        """Opens the file of the access log anew: the old one may have been moved away."""
        self._loop.call_soon_threadsafe(self._access_log.reopen)

    def stop(self) -> None:
        """Closes the ports; what is still in flight is broken off after a few seconds."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=4 * limits.CLOSE_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._listening.set()
            self._loop.close()

    async def _serve(self) -> None:
        options, upstreams, in_flight = self._options, Upstreams(self._health), InFlight(self.counters)
        self._admission = admission = Admission(options.max_bodies, options.max_body)
        context = GatewayContext(
            health=self._health,
            upstreams=upstreams,
            in_flight=in_flight,
            counters=self.counters,
            access=options.access,
            access_log=self._access_log,
            admission=admission,
            drain_grace=self.drain_grace,
        )
        bodies = BodyReader(self.counters, options.max_body, options.body_s)
        http = HttpGateway(context, bodies=bodies, write_s=options.write_s, allow_origins=options.allow_origins)
        connections = Connections(self._shares.grpc * 7 // 8)  # between two looks at them the library's own limit holds
        watch = GrpcConnections(self._ports["grpc-port"], connections)
        rpc = self._rpc_server()
        methods = RpcGateway(context, connections, self._streams, body_s=options.body_s, write_s=options.write_s)
        rpc.add_generic_rpc_handlers((methods,))
        listeners = [
            HttpListener(http.app(), self._shares.http, options.tls, self.counters),
            HttpListener(http.metrics_app(), self._shares.metrics, None, self.counters),
        ]
        self._loop.set_exception_handler(_one_line)
        watching = asyncio.ensure_future(watch.run())
        try:
            for listener, port in zip(listeners, ("http-port", "metrics-port"), strict=True):
                await listener.start(self._host, self._ports[port])
            self._listen(rpc)
            await rpc.start()
            self._listening.set()
            await self._stop.wait()
        except OSError as error:
            raise ServerError(f"cannot listen on {self._host}: {error.strerror}") from error
        finally:
            watching.cancel()
            await asyncio.gather(rpc.stop(limits.CLOSE_S), *(listener.close() for listener in listeners))
            await in_flight.close()
            await upstreams.close()
            self._access_log.close()

    def _rpc_server(self) -> grpc.aio.Server:
        idle_ms, first_ms = int(1e3 * limits.GRPC_IDLE_S), int(1e3 * limits.FIRST_REQUEST_S)
        return grpc.aio.server(
            maximum_concurrent_rpcs=limits.MAX_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # a second server on this port must fail
                ("grpc.max_receive_message_length", self._options.max_body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", limits.MAX_CALLS_OF_ONE),
                ("grpc.max_allowed_incoming_connections", self._shares.grpc),
                ("grpc.max_connection_idle_ms", idle_ms),
                ("grpc.server_handshake_timeout_ms", first_ms),
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),  # else clients that ask are sent away
                ("grpc.keepalive_time_ms", int(1e3 * limits.PING_S)),  # work ends where the network was cut, too
                ("grpc.keepalive_timeout_ms", int(1e3 * limits.PONG_S)),
                ("grpc.http2.ping_timeout_ms", int(1e3 * limits.PONG_S)),
            ],
        )

    def _listen(self, rpc: grpc.aio.Server) -> None:
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self._ports['grpc-port']}"
        try:
            if self._options.tls is None:
                rpc.add_insecure_port(address)
            else:
                rpc.add_secure_port(address, self._options.tls.credentials())
        except RuntimeError as error:
            raise ServerError(f"cannot listen on {address}: {error}") from error


def _one_line(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong beside all requests, without a traceback, which callers could fill the log with."""
    error = context.get("exception")
    logger.error("%s (%s)", context.get("message"), type(error).__name__ if error is not None else "no error")
