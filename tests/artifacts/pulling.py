"""What tests of pulling and pushing share."""

from __future__ import annotations

import contextlib
import http.client
from pathlib import Path

from id3pm.artifacts.address import parse_address
from id3pm.artifacts.download import OnBytes
from id3pm.artifacts.pull import pull


def pulled(address: object, folder: Path) -> bool:
    """Pulls without progress."""
    return pull(parse_address(str(address)), folder, quiet)


def quiet(total: int) -> OnBytes:
    return lambda count: None


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def asked(host: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body that a server on this machine answers."""
    with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
