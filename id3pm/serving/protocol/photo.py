"""A photograph on the wire: the bytes of an image file, or their base64 text.

JSON, HTML forms, browsers and shells each write base64 in their own way. Text with a unique meaning is accepted; all
other text is refused, with the value that was read.
"""

from __future__ import annotations

import binascii
import re

from id3pm.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from id3pm.formats.file_types import ACCEPTED, file_type, how_to_convert
from id3pm.serving.protocol.limits import MAX_PHOTO_BYTES

_SPACES = b" \t\n\r\x0b\f"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MOST_CODINGS = 3
"""Base64 of base64 of base64 is read; more layers are not."""
_DATA_URL = re.compile(rb"data:([^,]{0,256}),", re.IGNORECASE)
_QUOTES = (b'"', b"'")
_ESCAPES = (
    (b"%2B", b"+"),
    (b"%2b", b"+"),
    (b"%2F", b"/"),
    (b"%2f", b"/"),
    (b"%3D", b"="),
    (b"%3d", b"="),
    (b"%0D%0A", b""),
    (b"%0A", b""),
)
"""The characters of base64 that URLs escape."""


def photo_bytes(value: bytes) -> bytes:
    """The file's bytes of a photograph: from the bytes, from base64 text, or from a browser's `data:` URL.

    Base64 may be URL-safe, without its `=`, wrapped, percent-encoded, quoted, with spaces for `+`, and coded up to
    `_MOST_CODINGS` times. No image file is valid base64: all begin with, or soon have, bytes outside its alphabet.

    Raises:
        ImageError: It is empty, larger than `MAX_PHOTO_BYTES`, or text that is no base64 of a file.
    """
    if not value:
        raise UnsupportedImageError("photo is empty: send the bytes of a JPEG, PNG or WebP file, or their base64 text")
    if len(value) > MAX_PHOTO_BYTES * 4 // 3 + 1024:
        raise ImageTooLargeError(f"photo has {len(value)} bytes: at most {MAX_PHOTO_BYTES} are allowed")
    data = value
    for _ in range(_MOST_CODINGS):
        if file_type(data) is not None or not data.isascii():
            break
        try:
            data = _decoded(data)
        except ImageError:
            if data is value:
                raise
            break
    if len(data) > MAX_PHOTO_BYTES:
        raise ImageTooLargeError(f"photo has {len(data)} bytes: at most {MAX_PHOTO_BYTES} are allowed")
    if data is not value and file_type(data) not in ACCEPTED:
        raise UnsupportedImageError(f"photo is base64 text of {len(data)} bytes; what it holds {how_to_convert(data)}")
    return data


def _decoded(text: bytes) -> bytes:
    """One layer of base64 taken off.

    Raises:
        ImageError: It is not base64.
    """
    coded = _without_frame(text)
    for escape, character in _ESCAPES:
        coded = coded.replace(escape, character)
    coded = _without_spaces(coded).translate(_URL_SAFE).rstrip(b"=")
    other = coded.translate(None, _ALPHABET)
    if other:
        raise _error(text, f"it has {ascii(chr(other[0]))}, which base64 has not")
    if len(coded) % 4 == 1 or not coded:
        raise _error(text, f"{len(coded)} characters are no whole number of bytes: it was cut off")
    return binascii.a2b_base64(coded + b"=" * (-len(coded) % 4))


def _without_frame(text: bytes) -> bytes:
    """Base64 text without quotes and the head of a `data:` URL."""
    text = text.lstrip(_SPACES)
    bare = text.rstrip(_SPACES)
    start = 1 if bare[:2] in (b"b'", b'b"') else 0  # Python's repr of bytes
    if len(bare) > start + 1 and bare[start : start + 1] in _QUOTES and bare[-1:] == bare[start : start + 1]:
        text = bare[start + 1 : -1]
    head = _DATA_URL.match(text)
    if head is None:
        return text
    if not head[1].strip().lower().endswith(b"base64"):
        raise _error(text, "a data: URL must say ;base64 before its comma")
    return text[head.end() :]


def _without_spaces(coded: bytes) -> bytes:
    """Line breaks are dropped; so are spaces, unless they stand for `+`, as in the values of HTML forms.

    Spaces that wrap lines come at regular distances; where a text has no `+` of its own, and only one of both readings
    has the length of base64, it is that one.
    """
    coded = coded.lstrip(_SPACES).translate(None, _SPACES[1:])  # no image file's base64 begins with a plus sign
    spaces = coded.count(b" ")
    if not spaces or b"+" in coded or b"-" in coded:
        return coded.translate(None, b" ")
    wrapped, plus = coded.translate(None, b" "), coded.replace(b" ", b"+")
    fits = [_has_length(wrapped), _has_length(plus)]
    if fits[0] != fits[1]:
        return wrapped if fits[0] else plus
    line = coded.index(b" ")
    ends = range(line, len(coded), line + 1)
    regular = spaces == len(ends) and all(coded[end] == 0x20 for end in ends)
    return wrapped if regular else plus


def _has_length(coded: bytes) -> bool:
    digits = coded.rstrip(b"=")
    return b"=" not in digits and (len(coded) % 4 == 0 if len(coded) > len(digits) else len(digits) % 4 != 1)


def _error(text: bytes, reason: str) -> ImageError:
    shown = ascii(text[:32].decode("ascii")) + "..." * (len(text) > 32)
    hint = ""
    if text[:8].lower().startswith((b"http://", b"https://", b"file://")):
        hint = ", and URLs are not fetched"
    return UnsupportedImageError(
        f"photo is the text {shown}{hint}, and this is not base64 of a JPEG, PNG or WebP file: {reason}; send the "
        "file's bytes, or their base64 text"
    )
