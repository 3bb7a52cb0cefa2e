"""The public ports: HTTP, gRPC and metrics, in one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping

import grpc
import grpc.aio

from id3pm.errors import ServerError
from id3pm.serving.gateway.connections import Connections, Shares, raise_descriptor_limit
from id3pm.serving.gateway.context import GatewayContext
from id3pm.serving.gateway.grpc_connections import GrpcConnections
from id3pm.serving.gateway.grpc_server import RpcGateway
from id3pm.serving.gateway.http_listener import HttpListener
from id3pm.serving.gateway.http_server import HttpGateway
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.health import Health
from id3pm.serving.protocol import limits

logger = logging.getLogger(__name__)
_START_S = 30.0
_PING_MS = 1_000


class Gateway:
    """Listens from `start` to `stop`, also while Triton is replaced.

    Args:
        host: Address to listen on.
        ports: `http-port`, `grpc-port` and `metrics-port`, none of them 0.
        health: Health of the Triton process.
        options: See there.
    """

    def __init__(self, host: str, ports: Mapping[str, int], health: Health, options: GatewayOptions) -> None:
        self._host = host
        self._ports = ports
        self._context = GatewayContext(options, health)
        self._shares = Shares.of(raise_descriptor_limit())
        self._listening = threading.Event()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def counters(self) -> Counters:
        """What the gateway has counted."""
        return self._context.counters

    @property
    def busy(self) -> bool:
        """Whether requests or answers are in flight, or the second request of an image may still arrive."""
        context = self._context
        writing = context.streams.at_work or context.admission.work > 0
        return writing or context.in_flight.drain_grace.awaited or self.counters.in_flight > 0

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
        """Reopens the access log, whose file may have been moved away."""
        self._loop.call_soon_threadsafe(self._context.access_log.reopen)

    def stop(self) -> None:
        """Closes the ports; requests in flight are cancelled after a few seconds."""
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
        context, tls = self._context, self._context.options.tls
        http = HttpGateway(context)
        connections = Connections(self._shares.grpc * 7 // 8)  # between two checks the library's own limit holds
        watch = GrpcConnections(self._ports["grpc-port"], connections)
        rpc = self._rpc_server()
        rpc.add_generic_rpc_handlers((RpcGateway(context, connections),))
        listeners = [
            HttpListener(http.app(), self._shares.http, tls, context.counters),
            HttpListener(http.metrics_app(), self._shares.metrics, None, context.counters),
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
            await context.in_flight.close()
            await context.upstreams.close()
            context.access_log.close()

    def _rpc_server(self) -> grpc.aio.Server:
        idle_ms, first_ms = int(1e3 * limits.GRPC_IDLE_S), int(1e3 * limits.FIRST_REQUEST_S)
        return grpc.aio.server(
            maximum_concurrent_rpcs=limits.MAX_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # a second server on this port must fail
                ("grpc.max_receive_message_length", self._context.options.max_body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", limits.MAX_CALLS_OF_ONE),
                ("grpc.max_allowed_incoming_connections", self._shares.grpc),
                ("grpc.max_connection_idle_ms", idle_ms),
                ("grpc.server_handshake_timeout_ms", first_ms),
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),  # else clients that ask are sent away
                ("grpc.keepalive_time_ms", int(1e3 * limits.PING_S)),  # ends work also after a network failure
                ("grpc.keepalive_timeout_ms", int(1e3 * limits.PONG_S)),
                ("grpc.http2.ping_timeout_ms", int(1e3 * limits.PONG_S)),
            ],
        )

    def _listen(self, rpc: grpc.aio.Server) -> None:
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self._ports['grpc-port']}"
        try:
            if (tls := self._context.options.tls) is None:
                rpc.add_insecure_port(address)
            else:
                rpc.add_secure_port(address, tls.credentials())
        except RuntimeError as error:
            raise ServerError(f"cannot listen on {address}: {error}") from error


def _one_line(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Logs errors outside of requests, without a traceback, with which callers could fill the log."""
    error = context.get("exception")
    logger.error("%s (%s)", context.get("message"), type(error).__name__ if error is not None else "no error")
