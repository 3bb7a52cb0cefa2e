"""The self-signed certificate that deploy/README.md shows how to make is one that callers can check."""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path

import pytest

from id3pm.serving.gateway.options import Tls

README = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Made by the documented line."""
    folder = tmp_path_factory.mktemp("tls")
    command = re.search(r"^    (openssl req .*)$", README, re.MULTILINE)
    assert command is not None
    subprocess.run(["/bin/sh", "-c", command[1]], cwd=folder, check=True, capture_output=True, timeout=60)
    return Tls(folder / "certificate.pem", folder / "key.pem")


def shake_hands(tls: Tls, name: str) -> None:
    """TLS between a server with this certificate and a caller who knows it and asks for this name."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context().wrap_bio(up, down, server_side=True)
    caller = ssl.create_default_context(cafile=str(tls.certificate)).wrap_bio(down, up, server_hostname=name)
    for side in (caller, server, caller, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert caller.getpeercert()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_documented_certificate_is_good_for_this_machine(tls: Tls, name: str) -> None:
    shake_hands(tls, name)


def test_it_is_good_for_no_other_name(tls: Tls) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="faces.example"):
        shake_hands(tls, "faces.example")
