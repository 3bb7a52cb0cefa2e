"""The proxy that gRPC uses for a server; servers on this machine are reached without one."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import urllib.parse
from typing import Final

from id3pm_client._connection import UNIX, is_loopback

NO_PROXY_ARG: Final = ("grpc.enable_http_proxy", 0)
# In gRPC's order; the first that is set counts.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def is_local(url: str) -> bool:
    """Whether a server is on this machine, which no proxy can reach."""
    host = _host(url)
    if is_loopback(url) or host.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified  # 0.0.0.0, as servers write the addresses they listen on
    return False


def proxy_note(url: str) -> str:
    """Text for messages about an unreachable server: the proxy that gRPC uses for it; empty without one.

    Args:
        url: `host:port` of the server's gRPC endpoint.
    """
    if url.startswith(UNIX) or is_local(url):
        return ""
    variable = next((name for name in _PROXIES if os.environ.get(name)), None)
    exceptions = next((value for name in _EXCEPTIONS if (value := os.environ.get(name))), "")
    host = _host(url)
    if variable is None or any(_matches(host, entry.strip()) for entry in exceptions.split(",")):
        return ""
    proxy = _without_password(os.environ[variable])
    return f"; the way there is the proxy {variable}={proxy}: to go without it, add {host} to no_proxy"


def _host(url: str) -> str:
    return url.rpartition(":")[0].strip("[]")


def _matches(host: str, entry: str) -> bool:
    """Whether an entry of `no_proxy` means a host: the end of its name, its address, or a range of addresses."""
    if not entry:
        return False
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    return host.lower().endswith(entry.lower())


def _without_password(proxy: str) -> str:
    """A proxy's address without user and password."""
    try:
        parts = urllib.parse.urlsplit(proxy)
    except ValueError:
        return "(not a URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else proxy.rpartition("@")[2]
