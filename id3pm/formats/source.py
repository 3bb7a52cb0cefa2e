"""`source.json` of a pulled folder: the address that it came from, and the hash of each file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from id3pm.formats.hashing import file_sha256

SOURCE_FILE = "source.json"
_LONGEST = 1024


def write_source(folder: Path, address: str, files: Mapping[str, str]) -> None:
    """Records where a folder's files come from.

    Args:
        folder: The folder.
        address: Pinned.
        files: sha256 (hex) by path in the folder, with `/`.
    """
    text = json.dumps({"address": address, "files": dict(files)}, indent=1, sort_keys=True)
    (folder / SOURCE_FILE).write_text(text + "\n", encoding="utf-8")


def read_source(folder: Path) -> tuple[str, dict[str, str]] | None:
    """Address and hashes of a pulled folder; `None` if it was not pulled, or the record is damaged."""
    try:
        record: Any = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
        address, files = record["address"], dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(address, str) or len(address) > _LONGEST or not all(isinstance(x, str) for x in files.values()):
        return None
    return address, files


def source_of(folder: Path, name: str) -> str | None:
    """The address that a file was pulled from; `None` if it was not pulled, or has been changed since.

    Args:
        folder: The folder with `source.json`.
        name: The file's path in it, with `/`.
    """
    record = read_source(folder)
    if record is None:
        return None
    address, files = record
    file = folder / name
    return address if name in files and file.is_file() and file_sha256(file) == files[name] else None
