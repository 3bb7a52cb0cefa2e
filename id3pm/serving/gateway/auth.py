"""Auth: tokens, and the kinds of data that each caller may send."""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from id3pm.errors import ConfigError
from id3pm.serving.protocol.served_models import SIGNATURES
from id3pm.serving.protocol.status import RefusedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("photo", "vector")
MIN_TOKEN = 16
_OWNER_KEY = secrets.token_bytes(32)
MODELS = {
    name: "photo" if "photo" in signature.inputs else "vector" if "embedding" in signature.inputs else None
    for name, signature in SIGNATURES.items()
}
"""What a request to a model is made from; super_resolution takes neither a photograph nor an ID vector."""


@dataclasses.dataclass(frozen=True)
class Caller:
    """A caller that may send requests.

    Attributes:
        name: Name for the log.
        may_send: Some of `KINDS`.
        owner: Owner of its request ids (`id3pm.serving.protocol.wire.OWNER`); without tokens, one for all callers.
    """

    name: str
    may_send: tuple[str, ...]
    owner: str = "anyone"

    def require(self, model: str) -> None:
        """Checks that the caller may send the kind of data that a model takes.

        Raises:
            RefusedError: It may not.
        """
        kind = MODELS[model]
        if kind is not None and kind not in self.may_send:
            what = "photographs" if kind == "photo" else "ID vectors"
            raise RefusedError("permission_denied", f"{self.name} may not send {what}, which {model} takes")


ANYONE = Caller("anyone", KINDS)


class Access:
    """The callers by token; without tokens, every caller is let in.

    Args:
        callers: Tokens with their callers; `None` where no token is needed.
        accept: Some of `KINDS`: the outer limit for all callers.
    """

    def __init__(self, callers: Sequence[tuple[bytes, Caller]] | None = None, accept: tuple[str, ...] = KINDS) -> None:
        self._callers = callers
        self.accept = accept

    @property
    def limited(self) -> bool:
        """Whether a token is needed."""
        return self._callers is not None

    def replace(self, other: Access) -> None:
        """Takes over the callers of another; requests in flight continue."""
        self._callers, self.accept = other._callers, other.accept

    def caller(self, authorization: str | None) -> Caller:
        """The sender of a request.

        Args:
            authorization: The header, or gRPC metadata, of this name: `Bearer TOKEN`.

        Raises:
            RefusedError: There is no token, or an unknown one.
        """
        if self._callers is None:
            return self._within(ANYONE)
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RefusedError("unauthenticated", "a token is needed: send the header authorization: Bearer TOKEN")
        sent = token.strip().encode(errors="surrogateescape")  # as aiohttp reads bytes that are no UTF-8
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, sent)]  # all are compared
        if not found:
            raise RefusedError("unauthenticated", "the token is not known here")
        return self._within(found[0])

    def _within(self, caller: Caller) -> Caller:
        if self.accept == KINDS:
            return caller
        name = "callers of this service" if caller is ANYONE else caller.name
        return dataclasses.replace(
            caller, name=name, may_send=tuple(kind for kind in caller.may_send if kind in self.accept)
        )


def read_tokens(path: Path, accept: tuple[str, ...] = KINDS) -> Access:
    """Reads a TOML file with one table `[[caller]]` per caller: `name`, `token`, `may_send` (a list of `KINDS`).

    Args:
        path: The file.
        accept: See `Access`. A caller that may send neither kind keeps its token, because some endpoints
            take neither.

    Raises:
        ConfigError: The file breaks a rule; the message never shows a token.
        OSError: It cannot be read.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not TOML: {error}") from error
    tables = content.get("caller")
    if set(content) != {"caller"} or not isinstance(tables, list) or not tables:
        raise ConfigError(f"{path.name}: expected tables [[caller]] with name, token and may_send, and nothing else")
    callers = [_caller(f"{path.name}: caller {number}", table) for number, table in enumerate(tables, 1)]
    if len({token for token, _ in callers}) < len(callers):
        raise ConfigError(f"{path.name}: two callers have the same token")
    return Access(callers, accept)


def _caller(where: str, table: object) -> tuple[bytes, Caller]:
    if not isinstance(table, dict) or set(table) != {"name", "token", "may_send"}:
        keys = ", ".join(table) if isinstance(table, dict) else "no table"
        raise ConfigError(f"{where} has {keys}: needs exactly name, token and may_send")
    name, token, may_send = table["name"], table["token"], table["may_send"]
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}: name={name!r}: must be text")
    if not isinstance(token, str) or len(token) < MIN_TOKEN or not token.isascii() or token != token.strip():
        raise ConfigError(f"{where} ({name}): token: must be ASCII text of at least {MIN_TOKEN} characters")
    if not isinstance(may_send, list) or not may_send or not all(kind in KINDS for kind in may_send):
        raise ConfigError(f"{where} ({name}): may_send={may_send!r}: list some of {', '.join(KINDS)}")
    return token.encode(), Caller(name, tuple(may_send), _owner(token))


def _owner(token: str) -> str:
    """Owner name of a token: a keyed hash, because the stages get it. It is constant within this process."""
    return hmac.new(_OWNER_KEY, token.encode(), "sha256").hexdigest()[:32]


def check_exposure(host: str, access: Access, *, insecure: bool) -> None:
    """Refuses to serve other machines without tokens, unless this is allowed explicitly.

    Raises:
        ConfigError: Other machines reach `host`, no token is needed, and `insecure` is not set.
    """
    if access.limited or insecure or is_loopback(host):
        return
    raise ConfigError(
        f"--host {host} lets other machines send requests without a token: give --tokens FILE, or --insecure if "
        "something else protects the ports"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
