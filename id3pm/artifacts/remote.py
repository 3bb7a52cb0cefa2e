"""The interface that a hub and a registry share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from id3pm.artifacts.address import Address
from id3pm.artifacts.contents import Contents, FileEntry
from id3pm.errors import TransferError

CONNECT_S = 10.0
SILENCE_S = 60.0
"""Seconds without a byte after which a transfer is given up."""
BLOCK = 2**20


class Remote(Protocol):
    """A hub or a registry at one address."""

    def contents(self) -> Contents:
        """The list of the artifact's files.

        Raises:
            TransferError: It cannot be read, or is not what the address pins.
        """
        ...

    def open(self, path: str, entry: FileEntry, start: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Begins to read a file: the offset of the first byte (`start`, or 0 if only the whole is sent), and blocks.

        Raises:
            TransferError: It cannot be read.
            OSError: The connection broke; reading on may help.
        """
        ...

    def resolve(self) -> Address:
        """The address, pinned: the commit of a branch, the digest of a tag.

        Raises:
            TransferError: There is no such thing.
        """
        ...

    def push(
        self, contents: Contents, files: Mapping[str, Path], create: bool, report: Callable[[str], None]
    ) -> Address:
        """Uploads an artifact; returns its pinned address.

        Args:
            contents: The list.
            files: Where each file of the list is.
            create: Make the repository if there is none; a private one.
            report: Called with a line for each file.

        Raises:
            TransferError: It was refused, or the connection broke.
        """
        ...


def bounded(blocks: Iterator[bytes], most: int, what: str) -> bytes:
    """All bytes, if they are not too many.

    Raises:
        TransferError: There are more than `most`.
    """
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > most:
            raise TransferError(f"{what} has more than {most} bytes")
    return bytes(data)
