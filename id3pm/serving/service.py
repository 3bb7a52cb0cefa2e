"""The whole service: public ports, Triton behind them, and its supervisor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from id3pm.engines.manifest import Manifest
from id3pm.errors import ServerError
from id3pm.serving.gateway.auth import Access, check_exposure, is_loopback
from id3pm.serving.gateway.gateway import Gateway
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.endpoints import Endpoints, check_ports
from id3pm.serving.launcher.health import Health
from id3pm.serving.launcher.health_check import HealthCheckSettings
from id3pm.serving.launcher.preflight import check_engines
from id3pm.serving.launcher.supervisor import Supervisor
from id3pm.serving.launcher.triton_log import Outlet
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm.serving.protocol.limits import DRAIN_S

if TYPE_CHECKING:
    from typing import Unpack

_POLL_S = 0.05


class TritonArguments(TypedDict, total=False):
    """More arguments of `TritonServer`."""

    threads: int | None
    start_timeout_s: float
    trace_url: str | None
    on_log: Callable[[str], None] | None


class Service(Endpoints):
    """The service of `id3pm serve`.

    Use it as a context manager (`with Service("triton_repo") as service:`), or call `start` and `stop`.

    Args:
        repository: The model repository, with engines built into it.
        host: Address of the public ports. Triton itself has no port: it listens on sockets that only this user reaches.
        http_port: Public port of HTTP; 0 takes a free one, as for the next two.
        grpc_port: Public port of gRPC.
        metrics_port: Public port of Prometheus metrics.
        options: Limits, tokens, TLS.
        insecure: Allows a `host` that other machines reach, without tokens.
        drain_timeout_s: Seconds that work in flight gets to finish when the service is stopped.
        report: Gets a line of text about every fault and repair; called from a thread.
        health_check_settings: When Triton counts as faulty.
        **triton: More arguments of `TritonServer`.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        host: str = "127.0.0.1",
        http_port: int = 8000,
        grpc_port: int = 8001,
        metrics_port: int = 8002,
        options: GatewayOptions | None = None,
        insecure: bool = False,
        drain_timeout_s: float = DRAIN_S,
        report: Callable[[str], None] = lambda line: None,
        health_check_settings: HealthCheckSettings | None = None,
        **triton: Unpack[TritonArguments],
    ) -> None:
        super().__init__(host, http_port, grpc_port, metrics_port)
        self.health = Health()
        self.options = GatewayOptions() if options is None else options
        self._repository = Path(repository).resolve()
        self._drain_timeout_s = drain_timeout_s
        check_exposure(host, self.options.access, insecure=insecure)
        if self.options.tls is not None:
            self.options.tls.context()  # a wrong certificate should fail here, not when the engines are loaded

        if (on_log := triton.get("on_log")) is not None:
            triton["on_log"] = Outlet(on_log, self.health.drops_line)

        def make() -> TritonServer:
            return TritonServer(self._repository, drain_timeout_s=drain_timeout_s, private=True, **triton)

        self._supervisor = Supervisor(make, self.health, report, health_check_settings)
        self._gateway: Gateway | None = None

    @property
    def server(self) -> TritonServer:
        """The current Triton server; a restart replaces it."""
        return self._supervisor.server

    @property
    def manifests(self) -> dict[str, Manifest]:
        """The engines' manifests, by stage."""
        return self.server.manifests

    @property
    def failure(self) -> str | None:
        """The reason why the service gave up, or `None`."""
        return self._supervisor.failure if self._supervisor.ended.is_set() else None

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Opens the public ports, which report that nothing is ready yet, and returns when everything is.

        Raises:
            Id3pmError: Something is missing, a port is taken, or Triton cannot be started; nothing is left running.
        """
        if self._gateway is not None:
            raise ServerError("the service has been started already")
        check_engines(self._repository)
        self.ports = check_ports(self.host, self.ports)
        self._gateway = Gateway(self.host, self.ports, self.health, self.options)
        try:
            self._gateway.start()
            self._supervisor.start()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> bool:
        """Refuses new work, lets work in flight finish, then ends: `EXIT_S` and a few seconds after the time for that.

        Returns:
            Whether all work was finished in time.
        """
        assert self._gateway is not None
        deadline = time.monotonic() + self._drain_timeout_s
        self.health.drains()
        idle = 0  # rounds: between the two requests of an image, a single one may find nothing
        while idle < 2 and time.monotonic() < deadline and not self._supervisor.ended.is_set():
            time.sleep(_POLL_S)
            idle = 0 if self._gateway.busy else idle + 1
        clean = idle == 2 and self._supervisor.stop(max(deadline - time.monotonic(), 1.0))
        self.kill()
        return clean

    def kill(self) -> None:
        """Ends everything at once; safe to call at any time."""
        self._supervisor.kill()
        self.health.ends()
        if self._gateway is not None:
            self._gateway.stop()
            self._supervisor.kill()  # with the file descriptors of all connections free, nothing is left behind

    def abort(self) -> None:
        """Cancels all work, which a signal handler may do; call `stop` or `kill` as well."""
        self._supervisor.abort()

    def reload(self, access: Access | None = None) -> None:
        """Reopens the access log; replaces callers and tokens if they are given. From any thread.

        Args:
            access: New callers and permissions, or `None` to keep the present ones.
        """
        if access is not None:
            self.options.access.replace(access)
        if self._gateway is not None:
            self._gateway.reopen_log()

    @property
    def warning(self) -> str | None:
        """A warning about these options for the operator, if there is one."""
        if is_loopback(self.host):
            return None
        if not self.options.access.limited:
            return f"every machine that reaches {self.host} can use this service"
        if self.options.tls is None:
            return "tokens, photographs and ID vectors travel unencrypted: give --tls-certificate and --tls-key"
        return None
