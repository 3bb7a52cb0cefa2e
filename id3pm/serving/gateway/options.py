"""Options of the public ports: limits, callers, certificate, access log."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

import grpc

from id3pm.errors import ConfigError
from id3pm.serving.gateway.auth import Access
from id3pm.serving.protocol import limits


@dataclasses.dataclass(frozen=True)
class Tls:
    """A certificate chain and its private key, PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """The TLS context for HTTP.

        Raises:
            ConfigError: The files are not a certificate with its key, or the key is encrypted.
        """

        def pass_phrase() -> str:  # for an encrypted key; else OpenSSL would prompt on the terminal
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
    """Options of the operator.

    Attributes:
        max_body: Bytes of a request body or gRPC message.
        max_bodies: Bytes of all bodies in flight.
        body_s: Seconds for a body to arrive.
        write_s: Seconds for a caller to read its answer.
        access: Callers and the data that each may send.
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

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a number outside its range."""
        for name, least, most in (
            ("max_body", 1024, 2**31 - 1),  # gRPC counts in 32 bits
            ("max_bodies", 1024, 2**40),
            ("body_s", 0.001, 86_400.0),
            ("write_s", 0.001, 86_400.0),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name}={value}: must be between {least} and {most}")
