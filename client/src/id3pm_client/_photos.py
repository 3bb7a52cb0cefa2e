"""Photographs from paths, buffers, files and PIL images, as the bytes of an image file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from id3pm_client._errors import InvalidRequestError
from id3pm_client._images import Embedding, photo_bytes
from id3pm_client._tensors import is_tensor, plain

Photo: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[np.uint8]
)
"""A photograph: path, bytes or opened file of a JPEG, PNG or WebP image; a PIL image; or uint8 `[H, W, 3]` RGB."""

_LONGEST_PATH = 4096


def photo_file(photo: Photo) -> bytes:
    """A photograph as the bytes of an image file; the content of files is passed on unchanged.

    An opened file is read from its current position, and not closed.

    Raises:
        InvalidRequestError: Of another type, empty, or an array that is not uint8 `[H, W, 3]`.
        OSError: The file cannot be read.
    """
    value: Any = photo
    if isinstance(value, (str, os.PathLike)):
        value = _read_path(os.fsdecode(value))
    elif is_tensor(value):
        value = plain("photo", value)
    elif isinstance(value, Embedding):
        raise InvalidRequestError("the photo is an Embedding: pass it to generate or stream")
    elif not isinstance(value, (np.ndarray, Image.Image)):
        value = _read_buffer(value)
    return photo_bytes(value)


def _read_path(path: str) -> bytes:
    if path.startswith(("http://", "https://", "data:")):
        raise InvalidRequestError(f"photo={path[:64]!r}: is a URL; download or decode it, and pass the bytes")
    if len(path) > _LONGEST_PATH:
        raise InvalidRequestError(
            f"photo: text is taken for the path of a file, and this one has {len(path)} characters; "
            "decode base64 to bytes first"
        )
    try:
        return Path(path).read_bytes()
    except ValueError:  # a NUL, or half of a surrogate pair
        raise InvalidRequestError(f"photo={ascii(path[:64])}: no file can have this name") from None


def _read_buffer(value: Any) -> object:
    """The bytes in a buffer or an opened file; other objects as they are."""
    try:
        return memoryview(value).tobytes()
    except TypeError:
        read = getattr(value, "read", None)
    if not callable(read):
        return value
    try:
        data = read()
    except ValueError as error:  # closed
        raise InvalidRequestError(f"the photo is a file that cannot be read: {error}") from None
    if isinstance(data, str):
        raise InvalidRequestError("the photo is a file opened as text: open it with open(path, 'rb')")
    if not isinstance(data, bytes):
        raise InvalidRequestError(f"the photo's read() gave {type(data).__name__}: pass the bytes of an image file")
    if not data:
        raise InvalidRequestError("the photo is a file that is empty or read to its end: call seek(0) first")
    return data
