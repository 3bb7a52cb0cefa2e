"""Picture files from paths: each file itself, or all pictures of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.formats.photo_decoding import decode_photo

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


def named_pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """The pictures of a folder by file name, uint8 [H, W, 3].

    Raises:
        InvalidInputError: There is none.
        ImageError: One cannot be decoded.
    """
    return {file.name: decode_photo(file.read_bytes()) for file in picture_files([folder])}
