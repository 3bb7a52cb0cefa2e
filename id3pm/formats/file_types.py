"""File types by their first bytes, for messages about files that are not photographs."""

from __future__ import annotations

ACCEPTED = ("JPEG", "PNG", "WebP")
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"%PDF-", "PDF"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
"""Brands of ISO base media files (ISO/IEC 14496-12, `ftyp`) that hold still pictures."""


def file_type(data: bytes) -> str | None:
    """The type's usual name (`JPEG`, `HEIC`, `GIF`, ...), or `None` where it is not known here."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "BMP"
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    head = data[:256].lstrip().lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        return "SVG"
    return "HTML" if head.startswith((b"<!doctype html", b"<html")) else None


def _of_brands(data: bytes) -> str:
    """AVIF files also list HEIF's general brands, so AVIF's own are checked first, in any position."""
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[start : start + 4] for start in range(16, length, 4))}
    return next((name for name, own in _BRANDS.items() if brands.intersection(own)), "video")


def how_to_convert(data: bytes) -> str:
    """The file type and what to do, as the second half of a message."""
    name = file_type(data)
    if name is None:
        return "is not a JPEG, PNG or WebP file"
    article = "an" if name in ("AVIF", "ICO", "SVG") else "a"
    return f"is {article} {name} file: convert it to JPEG, PNG or WebP"
