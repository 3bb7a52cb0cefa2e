"""The origin of a request: the owner of its id, and the caller of its share of the machine.

A caller cannot set either: the gateway refuses the parameter names that it uses
(`id3pm.serving.protocol.wire.RESERVED`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import urllib.parse
from collections.abc import Iterable

from id3pm.serving.gateway.auth import ANYONE, Caller
from id3pm.serving.gateway.grpc_types import InferRequest
from id3pm.serving.protocol.status import RefusedError
from id3pm.serving.protocol.wire import CALLER, OWNER, RESERVED, RequestKey

_IPV6_NETWORK = 64  # bits of an IPv6 address that identify a network; its owner can choose the rest


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of a request.

    Attributes:
        owner: Owner of its id.
        caller: The caller that its share of the machine is counted to.
    """

    owner: str
    caller: str

    def key(self, request_id: str) -> RequestKey:
        """A request of this origin."""
        return RequestKey(self.owner, request_id)

    def mark(self, message: InferRequest) -> None:
        """Writes it into a request, as parameters that only the gateway may send."""
        for name, value in ((OWNER, self.owner), (CALLER, self.caller)):
            message.parameters[name].string_param = value


def origin_of(caller: Caller, host: str | None, port: int | None) -> Origin:
    """The origin of a request.

    With tokens, each token has a share of the machine. Without, each address has one (for IPv6 each network: one host
    may use all addresses of a network); on this machine, where all callers have one address, each connection has one.

    Args:
        caller: The sender.
        host: Address of the sender, if known.
        port: The connection's, at that address.
    """
    if caller.owner != ANYONE.owner:
        return Origin(caller.owner, caller.owner)
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return Origin(caller.owner, f"{host or 'unknown'}"[:64])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return Origin(caller.owner, f"{address}:{port}")
    if isinstance(address, ipaddress.IPv6Address):
        return Origin(caller.owner, str(ipaddress.ip_network((int(address), _IPV6_NETWORK), strict=False)))
    return Origin(caller.owner, str(address))


def grpc_peer(peer: str) -> tuple[str | None, int | None]:
    """Host and port of a gRPC peer: `ipv4:10.0.0.7:41000`, `ipv6:%5B::1%5D:41000`, or something without them."""
    kind, _, address = urllib.parse.unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None, None
    return host.strip("[]"), int(port)


def refuse_reserved(names: Iterable[str]) -> None:
    """Refuses request parameters, or JSON keys, that only the gateway sends.

    Raises:
        RefusedError: One is among them.
    """
    for name in names:
        if name in RESERVED:
            raise RefusedError("invalid_argument", f"{name}: this name is the server's own; leave it out")
