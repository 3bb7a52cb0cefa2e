"""Reading and writing of safetensors files, where safetensors is not installed: a header in JSON, then the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALIGNMENT = 8


class SafetensorError(Exception):
    """The file is not readable."""


class safe_open:  # noqa: N801 - the package's name
    """The names in a file; its numbers are read otherwise here."""

    def __init__(self, file: str | Path, framework: str) -> None:
        with Path(file).open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            try:
                self._header: dict[str, Any] = json.loads(stream.read(length))
            except ValueError as error:
                raise SafetensorError(f"no header: {error}") from error
        self._header.pop("__metadata__", None)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        """The file is closed already."""

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._header)


def write(
    path: str | Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], metadata: Mapping[str, str] | None
) -> None:
    """Writes a file.

    Args:
        path: The file.
        tensors: Name -> number format (`F32`), shape, little-endian bytes.
        metadata: Texts.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with Path(path).open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, _, content in tensors.values():
            stream.write(content)
