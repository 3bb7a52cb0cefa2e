"""Files of pictures: named themselves, or by their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from id3pm.errors import InvalidInputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and the pictures of folders by name; folders inside are left out.

    Raises:
        InvalidInputError: A folder has no pictures.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InvalidInputError(f"{path}: the folder has no pictures ({', '.join(SUFFIXES)})")
        found += inside
    return found
