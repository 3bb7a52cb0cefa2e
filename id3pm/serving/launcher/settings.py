"""Settings of a server that is started here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from id3pm.serving.protocol.limits import DRAIN_S

Settings = TypeVar("Settings", bound="ServerSettings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Addresses, threads and time limits of a server.

    Attributes:
        host: Address to listen on.
        http_port: Port of HTTP; 0 takes a free one, as for the next two.
        grpc_port: Port of gRPC.
        metrics_port: Port of Prometheus metrics.
        threads: CPU threads of each engine, or `None` for all cores.
        start_timeout_s: Seconds until Triton must be ready; loading large engines takes a while.
        drain_timeout_s: Seconds that work in flight gets to finish when the server is stopped.
        trace_url: OpenTelemetry collector that gets a span tree of every request (`http://host:4318/v1/traces`).
        on_log: Gets every line that Triton writes; called from a thread, which survives exceptions in it.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    threads: int | None = None
    start_timeout_s: float = 300.0
    drain_timeout_s: float = DRAIN_S
    trace_url: str | None = None
    on_log: Callable[[str], None] | None = None

    @classmethod
    def on_free_ports(cls: type[Settings], **settings: Any) -> Settings:
        """These settings on ports of this machine that are free when the server starts."""
        return cls(http_port=0, grpc_port=0, metrics_port=0, **settings)

    @property
    def ports(self) -> dict[str, int]:
        """The ports by option name; see `Endpoints`."""
        return {"http-port": self.http_port, "grpc-port": self.grpc_port, "metrics-port": self.metrics_port}
