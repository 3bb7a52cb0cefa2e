"""Counts the fields of a gRPC message before it is parsed: an empty field takes two bytes, and a hundred once parsed.

Sixty-four megabytes of empty inputs would become three gigabytes. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from id3pm.serving.protocol.limits import MAX_MESSAGE_PARTS, MAX_NUMBERS
from id3pm.serving.protocol.status import RefusedError

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_INPUTS, _CONTENTS = 5, 5  # of ModelInferRequest, and of an input
_BYTES_CONTENTS = 8  # of the contents; the others are numbers
_LONGEST_NUMBER = 10  # bytes


class _Counter:
    """Counts fields, and bytes of numbers, over all levels."""

    def __init__(self) -> None:
        self.parts = 0
        self.numbers = 0  # their bytes; a byte may become a number of eight

    def part(self) -> None:
        """One more.

        Raises:
            RefusedError: There are too many.
        """
        self.parts += 1
        if self.parts > MAX_MESSAGE_PARTS:
            raise RefusedError(
                "invalid_argument",
                f"the message has more than {MAX_MESSAGE_PARTS} fields: send tensors as raw_input_contents",
            )

    def add_numbers(self, size: int) -> None:
        """Counts bytes of numbers.

        Raises:
            RefusedError: There are too many.
        """
        self.numbers += size
        if self.numbers > MAX_NUMBERS * _LONGEST_NUMBER:
            raise RefusedError(
                "invalid_argument",
                f"the contents have {self.numbers} bytes of numbers: at most {MAX_NUMBERS} numbers are allowed, "
                "others must be raw_input_contents",
            )


def check_parts(data: bytes) -> None:
    """Checks that a `ModelInferRequest` becomes no more than a few times its size when it is parsed.

    Raises:
        RefusedError: It has too many fields, or too many numbers that are not sent as raw contents. Bytes that are
            no such message pass: the parser refuses them.
    """
    counter = _Counter()
    for number, start, end in _fields(data, 0, len(data), counter):
        if number == _INPUTS:
            for inner, inner_start, inner_end in _fields(data, start, end, counter):
                if inner == _CONTENTS:
                    _check_contents(data, inner_start, inner_end, counter)


def _check_contents(data: bytes, start: int, end: int, counter: _Counter) -> None:
    for number, first, last in _fields(data, start, end, counter):
        if number != _BYTES_CONTENTS:
            counter.add_numbers(last - first)


def _fields(data: bytes, start: int, end: int, counter: _Counter) -> list[tuple[int, int, int]]:
    """Number, first and last byte of each field that has a length; as far as they can be read."""
    found = []
    while start < end:
        counter.part()
        tag, start = _varint(data, start, end)
        kind = tag & 7
        if kind == _VARINT:
            _, start = _varint(data, start, end)
        elif kind in (_FIXED_64, _FIXED_32):
            start += 8 if kind == _FIXED_64 else 4
        elif kind == _BYTES:
            size, start = _varint(data, start, end)
            if size > end - start:
                break
            found.append((tag >> 3, start, start + size))
            start += size
        else:  # a group, which Triton's messages do not have
            break
    return found


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, start
