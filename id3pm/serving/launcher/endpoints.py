"""Addresses of a server: its host, and its ports, which are checked or chosen before it starts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from id3pm.errors import ServerError
from id3pm.serving.launcher.settings import ServerSettings

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Endpoints:
    """A server with an HTTP, a gRPC and a metrics port.

    Attributes:
        host: Address it listens on.
        ports: `http-port`, `grpc-port` and `metrics-port`; 0 until a free one has been chosen.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.host = settings.host
        self.ports = settings.ports

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


def check_ports(host: str, ports: Mapping[str, int]) -> dict[str, int]:
    """The ports to use, by option name; 0 becomes one that is free.

    Raises:
        ServerError: A port is taken, or the address is not one of this machine.
    """
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []  # kept open so that two zeros do not become the same port
    try:
        for option, port in ports.items():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probe = socket.socket(family, socket.SOCK_STREAM)
            held.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
            probe.bind((host, port))
            probe.listen(1)
            chosen[option] = probe.getsockname()[1]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServerError(f"port {port} on {host} is in use: choose another with --{option}") from error
        raise ServerError(f"cannot listen on {host}, port {port} (--{option}): {error.strerror}") from error
    finally:
        for probe in held:
            probe.close()
    return chosen
