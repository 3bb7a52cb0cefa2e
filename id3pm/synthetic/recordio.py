"""insightface's training set: `train.rec`, `train.idx`, `property`; written and read without MXNet.

A RecordIO file (dmlc-core, `recordio.h`) is a sequence of records, each

    magic 0xced7230a, uint32 little-endian
    continuation << 29 | length, uint32
    content, filled with zeros to a multiple of 4 bytes

Where the magic word itself stands in the content at a multiple of 4 bytes, the record is split there, without it, into
parts of continuation 1 (first), 2 (middle) and 3 (last); 0 is a whole record.

A record's content (MXNet, `IRHeader`) is flag uint32, label float32, id uint64, id2 uint64, then `flag` more labels
float32 where flag is above 0, then a picture file. insightface's record 0 has the labels [N + 1, N + 1 + C] for N
pictures of C classes; the pictures are records 1 .. N, in the order of their classes; record N + 1 + c has the labels
[first, last + 1] of class c. `train.idx` has a line `record TAB offset` for each, `property` the line `C,height,width`.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from id3pm.errors import InvalidInputError

MAGIC = struct.pack("<I", 0xCED7230A)
HEADER = struct.Struct("<IfQQ")
LARGEST = (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)


@dataclasses.dataclass(frozen=True)
class Record:
    """A record's content: its labels, its id, and the picture file; empty for the records without a picture."""

    labels: tuple[float, ...]
    id: int
    picture: bytes


class RecordWriter:
    """Writes `train.rec` and `train.idx` into a folder."""

    def __init__(self, folder: Path) -> None:
        self._records: BinaryIO = (folder / "train.rec").open("wb")
        self._index = (folder / "train.idx").open("w", encoding="ascii", newline="\n")

    def add(self, number: int, labels: Sequence[float], picture: bytes = b"") -> None:
        """Appends a record.

        Args:
            number: Of the record.
            labels: One for a picture, two for the other records.
            picture: A JPEG or PNG file.
        """
        flag, label, more = (0, labels[0], ()) if len(labels) == 1 else (len(labels), 0.0, tuple(labels))
        content = HEADER.pack(flag, label, number, 0) + struct.pack(f"<{len(more)}f", *more) + picture
        self._index.write(f"{number}\t{self._records.tell()}\n")
        parts = _split(content)
        for at, part in enumerate(parts):
            continuation = WHOLE if len(parts) == 1 else FIRST if not at else LAST if at == len(parts) - 1 else MIDDLE
            self._records.write(MAGIC + struct.pack("<I", continuation << 29 | len(part)) + part)
            self._records.write(bytes(-len(part) % 4))

    def close(self) -> None:
        """Ends both files."""
        self._records.close()
        self._index.close()


def _split(content: bytes) -> list[bytes]:
    """The parts between magic words at multiples of 4 bytes."""
    if len(content) > LARGEST:
        raise InvalidInputError(f"a record of {len(content)} bytes: RecordIO allows {LARGEST}")
    parts, start, at = [], 0, content.find(MAGIC)
    while at >= 0:
        if at % 4 == 0:
            parts.append(content[start:at])
            start = at + 4
            at = content.find(MAGIC, start)
        else:
            at = content.find(MAGIC, at + 1)
    return [*parts, content[start:]]


def read_records(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    """The records of a file with their offsets.

    Raises:
        InvalidInputError: It is no RecordIO file, or damaged.
    """
    offset, parts = file.tell(), []
    while head := file.read(8):
        if len(head) < 8 or head[:4] != MAGIC:
            raise InvalidInputError(f"no RecordIO record at {file.tell() - len(head)}")
        word = struct.unpack("<I", head[4:])[0]
        length, continuation = word & LARGEST, word >> 29
        content = file.read(length)
        file.read(-length % 4)
        if len(content) < length:
            raise InvalidInputError(f"the record at {offset} is cut off")
        parts.append(content)
        if continuation in (WHOLE, LAST):
            yield offset, _record(MAGIC.join(parts))
            offset, parts = file.tell(), []
    if parts:
        raise InvalidInputError(f"the record at {offset} is cut off")


def _record(content: bytes) -> Record:
    flag, label, number, _ = HEADER.unpack_from(content)
    end = HEADER.size + 4 * flag
    labels = struct.unpack_from(f"<{flag}f", content, HEADER.size) if flag else (label,)
    return Record(labels, number, content[end:])
