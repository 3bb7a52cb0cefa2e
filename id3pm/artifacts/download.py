"""Downloads the files of an artifact into a folder: resumed where an earlier attempt ended, bounded, checked."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from id3pm.artifacts.contents import CARD_ON_HUB, Contents, FileEntry
from id3pm.artifacts.remote import BLOCK, SILENCE_S, Remote
from id3pm.errors import TransferError
from id3pm.formats.hashing import file_sha256
from id3pm.formats.model_card import CARD_FILE

ATTEMPTS = 4
PAUSE_S = 0.5
SLOWEST = 16 * 2**10
"""Bytes a second, on average, below which a transfer is given up."""
T = TypeVar("T")
OnBytes = Callable[[int], None]


def local_name(path: str) -> str:
    """The path in a folder of a file of the list. A bundle's card has the name on the hub that the hub shows."""
    return CARD_FILE if path == CARD_ON_HUB else path


def repeated(ask: Callable[[], T]) -> T:
    """What a hub or a registry answers; asked again, a few times, if the connection breaks.

    Raises:
        OSError: It broke each time.
    """
    for attempt in range(ATTEMPTS - 1):
        with contextlib.suppress(OSError):
            return ask()
        time.sleep(PAUSE_S * 2**attempt)
    return ask()


def download(remote: Remote, contents: Contents, folder: Path, on_bytes: OnBytes) -> None:
    """Gets all files that the folder does not have yet, and checks each.

    Args:
        remote: Where from.
        contents: The list of the files.
        folder: Exists; may hold parts of an earlier attempt.
        on_bytes: Called with the number of further bytes that are there.

    Raises:
        TransferError: A file is not what the list says; the message names it.
        OSError: The connection broke again and again, or the disk is full.
    """
    for path, entry in sorted(contents.files.items(), key=lambda item: item[1].size):
        file = folder / local_name(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(remote, path, entry, file, on_bytes)


def _download(remote: Remote, path: str, entry: FileEntry, file: Path, on_bytes: OnBytes) -> None:
    have = file.stat().st_size if file.is_file() else 0
    on_bytes(min(have, entry.size))
    for attempt in range(ATTEMPTS):
        if have >= entry.size and file.is_file():
            break
        try:
            have = _read_on(remote, path, entry, file, have, on_bytes)
        except OSError:
            have = file.stat().st_size if file.is_file() else 0
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_S * 2**attempt)
    if have < entry.size:
        raise TransferError(
            f"{path}: {have} of {entry.size} bytes came; run the same command again to go on from there"
        )
    if (found := file_sha256(file)) != entry.sha256:
        file.unlink()
        raise TransferError(f"{path}: its sha256 is {found}, the list says {entry.sha256}: it was changed on the way")


def _read_on(remote: Remote, path: str, entry: FileEntry, file: Path, have: int, on_bytes: OnBytes) -> int:
    """Reads a file from byte `have` on; returns how many bytes of it are there then."""
    begun, got = time.monotonic(), 0
    with remote.open(path, entry, have) as (start, blocks), _opened(file, start) as stream:
        at = start
        on_bytes(start - have)  # negative if the whole is sent again
        for block in blocks:
            at, got = at + len(block), got + len(block)
            if at > entry.size:
                raise TransferError(f"{path}: more than the {entry.size} bytes of the list came")
            stream.write(block)
            on_bytes(len(block))
            if time.monotonic() - begun > SILENCE_S + got / SLOWEST:
                raise TransferError(f"{path}: less than {SLOWEST} bytes a second came")
    return at


def _opened(file: Path, start: int) -> BinaryIO:
    """The file for writing from `start` on; never through a link."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    stream = os.fdopen(descriptor, "wb", buffering=BLOCK)
    stream.truncate(start)
    stream.seek(start)
    return stream


def verify_files(folder: Path, files: dict[str, str], address: str) -> None:
    """Compares the files of a pulled folder with the hashes that were recorded.

    Raises:
        TransferError: One is missing or differs.
    """
    for name, sha256 in files.items():
        file = folder / name
        if not file.is_file() or file.is_symlink() or file_sha256(file) != sha256:
            raise TransferError(f"{file} is not the file of {address} any more: delete {folder} and pull it again")
