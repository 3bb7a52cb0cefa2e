"""A server of tokens, as large registries have one: the registry sends callers to it, and checks what it signs."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fake_hub import HttpServer, send


class TokenServer(HttpServer):
    """Signs tokens (RS256) for whoever sends the right name and password.

    Args:
        folder: For key and certificate.
        seconds: For how long a token is valid.

    Attributes:
        scopes: What tokens were asked for.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.key, self.certificate = folder / "key.pem", folder / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"]
        command += ["-keyout", str(self.key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._seconds = seconds
        self.scopes: list[str] = []
        self.accepts = "Basic " + base64.b64encode(b"caller:secret").decode()
        super().__init__()

    @property
    def configuration(self) -> str:
        """Of docker-registry."""
        return (
            f"auth: {{{{token: {{{{realm: '{self.url}/token', service: registry, issuer: tests, "
            f"rootcertbundle: {self.certificate}}}}}}}}}"
        )

    def answer(self, handler: Any, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        asked = parse_qs(urlsplit(path).query)
        scope = asked.get("scope", [""])[0]
        self.scopes.append(scope)
        if headers.get("authorization") != self.accepts:
            send(handler, 401)
            return
        send(handler, 200, json.dumps({"token": self._token(scope)}).encode())

    def _token(self, scope: str) -> str:
        now, access = time.time(), []
        if scope:
            kind, name, actions = scope.split(":")
            access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        pem = self.certificate.read_text().splitlines()
        claims = {
            **{"iss": "tests", "sub": "caller", "aud": "registry", "jti": str(uuid.uuid4()), "access": access},
            # The registry allows for clocks that differ by a minute.
            **{"iat": int(now) - 120, "nbf": int(now) - 120, "exp": int(now - 60 + self._seconds)},
        }
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem[1:-1])]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signed = subprocess.run(command, input=text.encode(), check=True, capture_output=True, timeout=60)
        return f"{text}.{_encoded(signed.stdout)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
