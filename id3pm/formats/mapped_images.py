"""Images of a data set's shards, mapped into memory instead of read: processes of one machine share them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # of a file in a zip archive; ends with the lengths of name and extra field
_CHUNK = 1 << 20


class MappedImages:
    """Images of several files as one array uint8 [M, S, S, 3] that is read when it is indexed.

    Args:
        parts: Arrays [m, S, S, 3] and which of their images count, in order; at least one image.

    Raises:
        ValueError: Their sizes differ, or they are not uint8.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, parts: Sequence[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> None:
        for array, _ in parts:
            if array.dtype != np.uint8:
                raise ValueError(f"images of dtype {array.dtype}: must be uint8")
        sizes = {array.shape[1:] for array, _ in parts}
        if len(sizes) != 1:
            raise ValueError(f"images of several sizes: {sorted(sizes)}")
        self._arrays = [array for array, _ in parts]
        self._part = np.concatenate([np.full(len(rows), number) for number, (_, rows) in enumerate(parts)])
        self._row = np.concatenate([rows for _, rows in parts])
        self.shape: tuple[int, ...] = (len(self._row), *sizes.pop())

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, which: int | slice | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """One image [S, S, 3], or a copy of several [n, S, S, 3]."""
        parts, rows = self._part[which], self._row[which]
        if np.ndim(rows) == 0:
            return np.array(self._arrays[parts][rows])
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, (part, row) in enumerate(zip(parts, rows, strict=True)):
            images[place] = self._arrays[part][row]
        return images


def mapped(path: Path, name: str) -> NDArray[Any]:
    """An array of an `.npz` file that is not compressed, mapped read-only; its bytes are compared with their checksum.

    Raises:
        KeyError: There is none of this name.
        zipfile.BadZipFile, ValueError: The file is damaged, or compressed.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        file.seek(start)
        left, checksum = member.file_size, 0
        while left and (chunk := file.read(min(left, _CHUNK))):
            left, checksum = left - len(chunk), zlib.crc32(chunk, checksum)
        if left or checksum != member.CRC:
            raise zipfile.BadZipFile(f"{name} has another checksum")
        file.seek(start)
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)  # type: ignore[no-untyped-call]
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran_order else "C")
