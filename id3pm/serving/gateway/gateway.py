"""The public ports: HTTP, gRPC and metrics, in one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
from aiohttp import web

from id3pm.errors import ConfigError, ServerError
from id3pm.serving.gateway.access_log import Journal
from id3pm.serving.gateway.admission import Admission
from id3pm.serving.gateway.auth import Access
from id3pm.serving.gateway.grpc_server import RpcGateway
from id3pm.serving.gateway.http_server import HttpGateway
from id3pm.serving.gateway.in_flight import Flights
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.protocol_log import ProtocolLog
from id3pm.serving.gateway.sequels import Sequels
from id3pm.serving.gateway.upstream import Upstreams
from id3pm.serving.launcher.health import Health
from id3pm.serving.protocol import limits

_CLOSE_S = 5.0
_PING_MS = 1_000


@dataclasses.dataclass(frozen=True)
class Tls:
    """A certificate chain and its private key, PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises:
            ConfigError: The files are no certificate with its key, or the key is encrypted.
        """

        def pass_phrase() -> str:  # asked only where one is needed; without this, OpenSSL asks the terminal
            raise ConfigError("--tls-key is encrypted: give one without a pass phrase")

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key, pass_phrase)
        except ssl.SSLError as error:
            raise ConfigError("--tls-certificate and --tls-key are no PEM files of one pair") from error
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC."""
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())])


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
        self.sequels = Sequels()
        self._host = host
        self._ports = ports
        self._health = health
        self._options = options
        self._listening = threading.Event()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether work is in flight, or the second request of an image may still come."""
        return self.sequels.awaited or self.counters.in_flight > 0

    def start(self) -> None:
        """Returns when all ports listen.

        Raises:
            ServerError: A port cannot be opened.
            ConfigError: Certificate and key are unusable.
        """
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Closes the ports; what is still in flight is broken off after a few seconds."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=4 * _CLOSE_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._listening.set()
            self._loop.close()

    async def _serve(self) -> None:
        options, upstreams, flights = self._options, Upstreams(self._health), Flights(self.counters)
        journal = Journal(options.access_log, self.counters)
        admission = Admission(options.max_bodies, options.max_body)
        parts = (self._health, upstreams, flights, self.counters, options.access, journal, admission, self.sequels)
        http = HttpGateway(
            *parts,
            max_body=options.max_body,
            body_s=options.body_s,
            write_s=options.write_s,
            allow_origins=options.allow_origins,
        )
        runners = [
            web.AppRunner(
                app,
                handler_cancellation=True,
                access_log=None,
                logger=ProtocolLog(self.counters),
                shutdown_timeout=_CLOSE_S,
                keepalive_timeout=limits.KEEPALIVE_S,
            )
            for app in (http.app(), http.metrics_app())
        ]
        rpc = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # a second server on this port must fail
                ("grpc.max_receive_message_length", options.max_body),
                ("grpc.max_send_message_length", -1),
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),  # else clients that ask are sent away
                ("grpc.keepalive_time_ms", int(1e3 * limits.PING_S)),  # work ends where the network was cut, too
                ("grpc.keepalive_timeout_ms", int(1e3 * limits.PONG_S)),
                ("grpc.http2.ping_timeout_ms", int(1e3 * limits.PONG_S)),
            ]
        )
        rpc.add_generic_rpc_handlers((RpcGateway(*parts, body_s=options.body_s, write_s=options.write_s),))
        try:
            for runner, port, tls in zip(runners, ("http-port", "metrics-port"), (options.tls, None), strict=True):
                await runner.setup()
                context = None if tls is None else tls.context()
                await web.TCPSite(runner, self._host, self._ports[port], ssl_context=context).start()
            self._listen(rpc)
            await rpc.start()
            self._listening.set()
            await self._stop.wait()
        except OSError as error:
            raise ServerError(f"cannot listen on {self._host}: {error.strerror}") from error
        finally:
            await rpc.stop(_CLOSE_S)
            for runner in runners:
                await runner.cleanup()
            await flights.close()
            await upstreams.close()
            journal.close()

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
