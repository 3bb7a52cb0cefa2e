"""The whole service: public ports, Triton behind them, and its supervisor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from id3pm.engines.manifest import Manifest
from id3pm.errors import ServerError
from id3pm.serving.gateway.auth import Access, check_exposure, is_loopback
from id3pm.serving.gateway.gateway import Gateway
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.endpoints import Endpoints, check_ports
from id3pm.serving.launcher.health import Health
from id3pm.serving.launcher.health_check import HealthCheckSettings
from id3pm.serving.launcher.preflight import check_engines
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.supervisor import Supervisor
from id3pm.serving.launcher.triton_log import Outlet
from id3pm.serving.launcher.triton_server import TritonServer

_POLL_S = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceSettings(ServerSettings):
    """Settings of a service: those of its public ports, of Triton and of their supervision.

    Attributes:
        gateway: Limits, tokens, TLS.
        insecure: Allows a `host` that other machines reach, without tokens.
        report: Gets a line of text about every fault and repair; called from a thread.
        health_check: When Triton counts as faulty.
    """

    gateway: GatewayOptions = dataclasses.field(default_factory=GatewayOptions)
    insecure: bool = False
    report: Callable[[str], None] = lambda line: None
    health_check: HealthCheckSettings = dataclasses.field(default_factory=HealthCheckSettings)


class Service(Endpoints):
    """The service of `id3pm serve`.

    Use it as a context manager (`with Service("triton_repo") as service:`), or call `start` and `stop`.

    Args:
        repository: The model repository, with engines built into it.
        settings: Host and ports are the public ones. Triton itself has no port: it listens on sockets that only this
            user reaches.

    Raises:
        ConfigError: The certificate cannot be used, or the service would be open to other machines.
    """

    def __init__(self, repository: str | Path, settings: ServiceSettings | None = None) -> None:
        self.settings = ServiceSettings() if settings is None else settings
        super().__init__(self.settings)
        self.health = Health()
        self._repository = Path(repository).resolve()
        check_exposure(self.host, self.settings.gateway.access, insecure=self.settings.insecure)
        if self.settings.gateway.tls is not None:
            self.settings.gateway.tls.context()  # a wrong certificate should fail here, not when the engines are loaded
        self._supervisor = Supervisor(self._new_server, self.health, self.settings.report, self.settings.health_check)
        self._gateway: Gateway | None = None

    def _new_server(self) -> TritonServer:
        """A Triton server that has not been started."""
        on_log = self.settings.on_log
        outlet = None if on_log is None else Outlet(on_log, self.health.drops_line)
        return TritonServer(self._repository, dataclasses.replace(self.settings, on_log=outlet), private=True)

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
        self._gateway = Gateway(self.host, self.ports, self.health, self.settings.gateway)
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
        deadline = time.monotonic() + self.settings.drain_timeout_s
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
            self.settings.gateway.access.replace(access)
        if self._gateway is not None:
            self._gateway.reopen_log()

    @property
    def warning(self) -> str | None:
        """A warning about these options for the operator, if there is one."""
        if is_loopback(self.host):
            return None
        if not self.settings.gateway.access.limited:
            return f"every machine that reaches {self.host} can use this service"
        if self.settings.gateway.tls is None:
            return "tokens, photographs and ID vectors travel unencrypted: give --tls-certificate and --tls-key"
        return None
