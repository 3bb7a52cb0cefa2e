"""Connection settings: address, TLS, token."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from id3pm_client._errors import InvalidRequestError, shown

DEFAULT_URL = "127.0.0.1:8001"
UNIX = "unix:"
DNS = "dns:///"
"""Begins the address of several servers: all that a name has."""
REQUEST_ID = "x-request-id"
"""Header with the request id, by which proxies choose a server."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Security:
    """Security settings of all servers of a client.

    Attributes:
        ssl: Encrypt the connection.
        root_certificates: PEM file with the certificates to trust, or `None` for the system's.
        client_certificate: PEM file with the certificate chain of this client, or `None`.
        client_key: PEM file with the private key of `client_certificate`.
        headers: Sent with every request.
        token: Sent with every request as `authorization: Bearer TOKEN`.
    """

    ssl: bool = False
    root_certificates: str | os.PathLike[str] | None = None
    client_certificate: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    token: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("root_certificates", "client_certificate", "client_key"):
            if getattr(self, name) is not None and not self.ssl:
                raise InvalidRequestError(f"{name} has no effect without ssl=True")
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidRequestError("client_certificate and client_key belong together: give both or neither")
        for name, value in self.headers.items():
            if not isinstance(name, str) or _HEADER_NAME.fullmatch(name) is None:
                raise InvalidRequestError(f"headers: the name {shown(name)} must be letters, digits, '-', '_' and '.'")
            if name.lower() == REQUEST_ID:
                raise InvalidRequestError(f"headers: {REQUEST_ID} is the id of each request, which this client sends")
            if not isinstance(value, str) or not value.isascii() or not value.isprintable():
                raise InvalidRequestError(f"headers[{name!r}]: must be printable ASCII text")  # perhaps a secret
        if self.token is not None:
            # The value is a secret: no message shows it.
            if not isinstance(self.token, str) or not self.token.isascii() or not self.token.isprintable():
                raise InvalidRequestError("token: must be printable ASCII text")
            if not self.token or " " in self.token:
                raise InvalidRequestError("token: must not be empty or contain spaces")
            if any(name.lower() == "authorization" for name in self.headers):
                raise InvalidRequestError("token and headers['authorization'] say the same: give one of them")


@dataclasses.dataclass(frozen=True)
class Connection:
    """Address and security of one server.

    Attributes:
        url: `host:port` of its gRPC endpoint.
        security: Settings of all servers of a client.
        name: `host:port` that was looked up to find it, for which its certificate is; empty where `url` was given.
    """

    url: str = DEFAULT_URL
    security: Security = dataclasses.field(default_factory=Security)
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or "://" in self.url or ":" not in self.url:
            raise InvalidRequestError(
                f"url={shown(self.url)}: give host:port of the gRPC endpoint, such as {DEFAULT_URL}, or {DNS}host:port"
            )
        if not self.url.startswith(UNIX):
            host, _, port = self.url.rpartition(":")
            if not host.isprintable() or " " in host:
                raise InvalidRequestError(f"url={shown(self.url)}: the host has characters that no host has")
            if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
                raise InvalidRequestError(f"url={shown(self.url)}: the port must be a number from 1 to 65535")
        if self.security.token is not None and not self.security.ssl and not is_loopback(self.url):
            raise InvalidRequestError(
                f"a token for {self.url} would travel unencrypted: use ssl=True; "
                "where something else encrypts the way, pass headers={'authorization': 'Bearer ...'}"
            )

    @property
    def headers(self) -> Mapping[str, str]:
        """Metadata of every request; gRPC requires lower-case names."""
        headers = {name.lower(): value for name, value in self.security.headers.items()}
        if self.security.token is not None:
            headers["authorization"] = f"Bearer {self.security.token}"
        return MappingProxyType(headers)


def as_urls(value: object) -> list[str]:
    """One address or several as a list.

    Raises:
        InvalidRequestError: None at all, or the same one twice.
    """
    urls: list[Any] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not urls:
        raise InvalidRequestError("url=[]: give at least one host:port")
    for url in urls:
        if urls.count(url) > 1:
            raise InvalidRequestError(f"url={url!r} is there {urls.count(url)} times: give each server once")
    return urls


def is_loopback(url: str) -> bool:
    """Whether `host:port` is on this machine."""
    host = url.rpartition(":")[0].strip("[]")
    if host == "localhost" or url.startswith(UNIX):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
