"""Photographs on the wire: bytes, and the variants of base64."""

from __future__ import annotations

import base64
import tracemalloc
import urllib.parse

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from id3pm.errors import ImageError
from id3pm.serving.protocol.limits import MAX_PHOTO_BYTES
from id3pm.serving.protocol.photo import photo_bytes

NOISE = np.random.default_rng(0).bytes(1999)
FILES = {
    "jpeg": b"\xff\xd8\xff\xe0" + NOISE,
    "png": b"\x89PNG\r\n\x1a\n" + NOISE,
    "webp": b"RIFF\x10\0\0\0WEBPVP8 " + NOISE,
}
JPEG = FILES["jpeg"]
STANDARD, URL_SAFE = base64.b64encode(JPEG), base64.urlsafe_b64encode(JPEG)
SPELLINGS = {
    "bytes": JPEG,
    "standard": STANDARD,
    "without =": STANDARD.rstrip(b"="),
    "url-safe": URL_SAFE,
    "url-safe without =": URL_SAFE.rstrip(b"="),
    "lines": base64.encodebytes(JPEG),
    "lines of mail": b"\r\n".join(STANDARD[start : start + 76] for start in range(0, len(STANDARD), 76)) + b"\r\n",
    "lines joined by spaces": b" ".join(STANDARD[start : start + 64] for start in range(0, len(STANDARD), 64)),
    "+ as space": STANDARD.replace(b"+", b" "),
    "+ as space, without =": STANDARD.replace(b"+", b" ").rstrip(b"="),
    "percent-encoded": urllib.parse.quote(STANDARD, safe="").encode(),
    "percent-encoded in small letters": STANDARD.replace(b"+", b"%2b").replace(b"/", b"%2f"),
    "twice": base64.b64encode(STANDARD),
    "three times": base64.b64encode(base64.b64encode(STANDARD)),
    "data URL": b"data:image/jpeg;base64," + STANDARD,
    "data URL in capitals": b"DATA:IMAGE/JPEG;BASE64," + STANDARD,
    "data URL with a name": b"data:image/jpeg;name=me.jpg;base64," + STANDARD,
    "data URL without a type": b"data:;base64," + URL_SAFE,
    "base64 of a data URL": base64.b64encode(b"data:image/jpeg;base64," + STANDARD),
    "quoted": b'"' + STANDARD + b'"',
    "repr of bytes": repr(STANDARD).encode(),
    "spaces around": b"  " + STANDARD + b" \n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_base64_is_the_same_file(spelling: str) -> None:
    assert b"+" in STANDARD and b"/" in STANDARD and STANDARD.endswith(b"=")
    assert photo_bytes(SPELLINGS[spelling]) == JPEG


@given(st.sampled_from(sorted(FILES)), st.binary(max_size=200), st.integers(1, 3))
def test_all_lengths_come_back(kind: str, rest: bytes, layers: int) -> None:
    data = coded = FILES[kind] + rest
    for _ in range(layers):
        coded = base64.urlsafe_b64encode(coded).rstrip(b"=")
    assert photo_bytes(coded) == photo_bytes(data) == data


@given(st.binary(max_size=300))
@example(b"\0\0\0\0\0\0>")  # ends in a plus sign
def test_a_form_that_makes_spaces_of_plus_signs_loses_nothing(rest: bytes) -> None:
    assert photo_bytes(base64.b64encode(JPEG + rest).replace(b"+", b" ")) == JPEG + rest


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "photo is empty"),
        (b"portrait.jpg", r"the text 'portrait.jpg', and this is not base64 of a JPEG, PNG or WebP file: it has '[.]'"),
        (b"https://example.org/a.jpg", "and URLs are not fetched"),
        (b"data:image/jpeg," + STANDARD, "a data: URL must say ;base64"),
        (b"/9j/4", "5 characters are no whole number of bytes: it was cut off"),
        (b"===", "it was cut off"),
        (b"aGVsbG8=", "base64 text of 5 bytes; what it holds is not a JPEG, PNG or WebP file"),
        (base64.b64encode(b"GIF89a" + NOISE), "what it holds is a GIF file: convert it to JPEG, PNG or WebP"),
        (base64.b64encode(b"\0\0\0\x18ftypheic" + NOISE), "is a HEIC file: convert it"),
        (STANDARD[:40] + b"!" + STANDARD[40:], "it has '!'"),
    ],
)
def test_other_text_is_refused_with_what_was_read(sent: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        photo_bytes(sent)


def test_bytes_that_are_no_image_are_left_to_the_decoder() -> None:
    for data in (b"GIF89a", b"\xff\xfe\0", b"BM\x10\0\0\0\0\0\0\0"):
        assert photo_bytes(data) == data


def test_oversized_photographs_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match=f"at most {MAX_PHOTO_BYTES}"):
        photo_bytes(b"\xff" * (MAX_PHOTO_BYTES + 1))
    with pytest.raises(ImageError, match=f"at most {MAX_PHOTO_BYTES}"):
        photo_bytes(b"A" * (MAX_PHOTO_BYTES * 2))


@pytest.mark.parametrize("part", [b"AAAA ", b"%2B", b"%41", b"= ", b"A\n", b" "])
def test_no_text_makes_an_object_of_every_letter(part: bytes) -> None:
    photo = part * (1_000_000 // len(part))
    tracemalloc.start()
    with pytest.raises(ImageError):
        photo_bytes(photo)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(photo)
    tracemalloc.stop()
