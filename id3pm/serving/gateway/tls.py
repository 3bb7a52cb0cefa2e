"""Certificate and key of the public ports."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

import grpc

from id3pm.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Tls:
    """A certificate chain and its private key, PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises:
            ConfigError: The files are no certificate with its key, or the key is encrypted.
        """

        def pass_phrase() -> str:  # asked only where one is needed; without this, OpenSSL asks the terminal
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
