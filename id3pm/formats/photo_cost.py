"""Estimates the decoding time of a photograph from its header.

The constants are seconds of one core of a server of 2023, measured on photographs of 1 to 40 megapixels. Only
their ratio matters: the user of the estimate learns the speed of its own machine.
"""

from __future__ import annotations

import base64
import binascii
import re

from id3pm.formats.photo_decoding import MAX_DECODING_S, MAX_PIXELS, MAX_SCANS

FIXED_S = 0.03
"""Finding and encoding the face, whatever the size of the photograph."""
LOOKED_AT = 256 * 1024
"""Bytes from the beginning that are read; metadata and thumbnails of cameras come before the size."""
COUNTED = 2**20
"""Bytes in which passes over a JPEG are counted; many passes in few bytes take long."""
_BYTE_S = 9e-9
_JPEG_PIXEL_S, _SCAN_PIXEL_S = 14e-9, 2.2e-9  # the latter for every pass over the picture after the first
_PNG_PIXEL_S, _WEBP_PIXEL_S = 55e-9, 45e-9
_USUAL_SCANS = 10  # of a progressive JPEG that is not read to its end
_SEGMENTS = 4096
_SOI, _SOS = 0xD8, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SPACES = re.compile(rb"\s+")


def decoding_s(photo: bytes, *, whole: bool = False) -> float:
    """Expected seconds for a photograph, as it comes with a request: a file's bytes, base64 text, or a `data:` URL.

    Takes a millisecond or two. Text is read as far as `LOOKED_AT`, and the passes of a JPEG are counted as far as
    `COUNTED`; later ones are counted only with `whole`.

    Args:
        photo: The bytes or text that was sent.
        whole: Count to the end: 0.1 s for the largest file.
    """
    head = photo[:LOOKED_AT]
    if not head.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF")):
        decoded = _decoded(head)
        return _seconds(decoded, len(photo) * 3 // 4, scans=None)
    return _seconds(head, len(photo), scans=photo.count(b"\xff\xda", 0, len(photo) if whole else COUNTED))


def _decoded(text: bytes) -> bytes:
    """The beginning of a file from that of its base64 text; empty if it is not base64."""
    coded = _SPACES.sub(b"", text.partition(b",")[2] if text.startswith(b"data:") else text)
    try:
        return base64.b64decode(coded[: len(coded) // 4 * 4], validate=True)
    except binascii.Error:
        return b""


def _seconds(head: bytes, size: int, scans: int | None) -> float:
    pixels, pixel_s = 0, 0.0  # not a picture: refused before decoding
    if head.startswith(b"\xff\xd8"):
        pixels, pixel_s = _jpeg(head, scans)
    elif head.startswith(b"\x89PNG"):
        pixels, pixel_s = int.from_bytes(head[16:20], "big") * int.from_bytes(head[20:24], "big"), _PNG_PIXEL_S
    elif head.startswith(b"RIFF"):
        pixels, pixel_s = _webp_pixels(head), _WEBP_PIXEL_S
    if not 0 < pixels <= MAX_PIXELS:  # refused, too
        return FIXED_S
    return FIXED_S + min(size * _BYTE_S + pixels * pixel_s, MAX_DECODING_S)


def _jpeg(head: bytes, scans: int | None) -> tuple[int, float]:
    """Pixels, and seconds for each. The frame header has the size; every scan is one more pass over the picture.

    ITU-T T.81, Annex B.
    """
    at = 2
    for _ in range(_SEGMENTS):
        at = head.find(b"\xff", at)
        if at < 0 or at + 10 > len(head):
            break
        marker = head[at + 1]
        if marker in _FRAMES:
            pixels = int.from_bytes(head[at + 5 : at + 7], "big") * int.from_bytes(head[at + 7 : at + 9], "big")
            passes = max(1, scans) if scans is not None else _USUAL_SCANS if marker in _PROGRESSIVE else 1
            return pixels, _JPEG_PIXEL_S + _SCAN_PIXEL_S * (min(passes, MAX_SCANS) - 1)
        if marker == _SOS:
            break
        if marker in (0x00, 0x01, 0xFF, _SOI) or 0xD0 <= marker <= 0xD7:
            at += 1
        else:
            at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return MAX_PIXELS, _JPEG_PIXEL_S  # metadata without an end: assumed to be a large photograph


def _webp_pixels(head: bytes) -> int:
    kind, body = head[12:16], head[20:30]
    if kind == b"VP8X":
        return (int.from_bytes(body[4:7], "little") + 1) * (int.from_bytes(body[7:10], "little") + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return (int.from_bytes(body[6:8], "little") & 0x3FFF) * (int.from_bytes(body[8:10], "little") & 0x3FFF)
