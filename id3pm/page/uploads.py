"""Uploaded files: read once, deleted at once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from id3pm.page.user_messages import PageError


def take(file: Any, folder: Path) -> bytes:
    """Reads and deletes an uploaded file.

    Args:
        file: The browser's description of it; its `path` is not trusted, so it is checked.
        folder: The one folder for uploads, at any depth.

    Raises:
        PageError: It is not there.
    """
    named = Path(str(file["path"])) if isinstance(file, Mapping) and file.get("path") else None
    # Resolved first: a link in the folder must not lead out of it.
    path = None if named is None else named.resolve()
    if path is None or not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise PageError("The photograph did not arrive.", "Please drop it once more.")
    try:
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: another file of the same content has just come
            path.parent.rmdir()
