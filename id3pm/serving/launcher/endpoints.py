"""Addresses of a server."""

from __future__ import annotations

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Endpoints:
    """A server with an HTTP, a gRPC and a metrics port.

    Attributes:
        host: Address to listen on.
        ports: `http-port`, `grpc-port` and `metrics-port`; 0 until a free one has been chosen.
    """

    def __init__(self, host: str, http_port: int, grpc_port: int, metrics_port: int) -> None:
        self.host = host
        self.ports = {"http-port": http_port, "grpc-port": grpc_port, "metrics-port": metrics_port}

    @property
    def reachable_host(self) -> str:
        """The address at which this machine reaches it."""
        return _ANY.get(self.host, self.host)

    @property
    def http_url(self) -> str:
        """`host:port` of HTTP."""
        return self._url("http-port")

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC, as clients want it."""
        return self._url("grpc-port")

    @property
    def metrics_url(self) -> str:
        """`host:port` of the metrics."""
        return self._url("metrics-port")

    def _url(self, option: str) -> str:
        host = f"[{self.reachable_host}]" if ":" in self.reachable_host else self.reachable_host
        return f"{host}:{self.ports[option]}"
