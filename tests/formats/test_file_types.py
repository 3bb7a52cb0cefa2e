"""Files that are no photographs this package reads are named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from id3pm.errors import ImageError
from id3pm.formats.file_types import file_type
from id3pm.formats.photo_decoding import decode_photo

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def ftyp(*brands: bytes) -> bytes:
    """The beginning of a file of the ISO base media format: major brand, version, compatible brands."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return (8 + len(body)).to_bytes(4, "big") + b"ftyp" + body + bytes(40)


def written(kind: str) -> bytes:
    """A small picture as Pillow writes it."""
    file = io.BytesIO()
    PICTURE.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WebP")])
def test_photographs_are_known(kind: str, name: str) -> None:
    assert file_type(written(kind)) == name
    assert decode_photo(written(kind)).shape == (12, 20, 3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "ICO", "PDF"])
def test_files_that_programs_write_are_named(kind: str) -> None:
    with pytest.raises(ImageError, match=f"is an? {kind} file: convert it to JPEG, PNG or WebP"):
        decode_photo(written(kind))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ftyp(b"heic", b"mif1", b"heic"), "HEIC"),
        (ftyp(b"mif1", b"heic", b"miaf"), "HEIC"),
        (ftyp(b"avif", b"mif1", b"miaf"), "AVIF"),
        (ftyp(b"mif1", b"avif", b"miaf"), "AVIF"),
        (ftyp(b"isom", b"mp41"), "video"),
        (b"MM\0*" + bytes(20), "TIFF"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"<!DOCTYPE html><p>Not found", "HTML"),
    ],
)
def test_files_of_phones_and_of_the_web_are_named(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"is an? {name} file: convert it to JPEG, PNG or WebP"):
        decode_photo(data)


@pytest.mark.parametrize("data", [b"no picture", b"", b"BMW is no bitmap", b"RIFF....AVI "])
def test_what_is_not_known_is_not_named(data: bytes) -> None:
    assert file_type(data) is None
    with pytest.raises(ImageError, match="is not a JPEG, PNG or WebP file"):
        decode_photo(data)
