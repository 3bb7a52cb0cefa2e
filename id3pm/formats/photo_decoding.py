"""Safe decoding of photos from users: bounded in pixels, passes and processor time."""

from __future__ import annotations

import io
import re
import struct
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from id3pm.errors import DamagedImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from id3pm.formats.file_types import how_to_convert
from id3pm.formats.images import XMP_KEY

MAX_PIXELS = 40_000_000
"""Largest photo that is decoded: 40 megapixels, 120 MB as RGB. Cameras of today stay below it."""
MAX_SCANS = 64
"""Most passes over the picture in a JPEG. Encoders make 10; each one takes decoding time, however few bytes it has."""
MAX_DECODING_S = 8.0
"""Longest processor time for decoding a photo; 40 megapixels take some 2 s in the slowest usual format."""
_EXIF_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # not the 0xff of compressed data, nor restart markers
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = (0x01, 0xD8)  # TEM, and another start of image
Watch = Callable[[], object]
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS, alive: Watch | None = None) -> NDArray[np.uint8]:
    """Decodes a photo to RGB, as a viewer shows it.

    JPEG, PNG and WebP; the first frame of animations; EXIF orientation applied; transparency on white; 16-bit depth,
    palettes, grey and CMYK converted to 8-bit RGB. Colour profiles are ignored. The size is read from the header and
    checked before any pixel is decoded.

    Args:
        data: The file's content.
        max_pixels: Largest allowed width x height.
        alive: Called repeatedly during the work, at most two seconds apart on an idle processor.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ImageError: Not such a file, too large, truncated or damaged; a JPEG of more than `MAX_SCANS` scans; or
            decoding takes longer than `MAX_DECODING_S`.
    """
    watch = _limited(alive)
    image = _open(data, max_pixels, watch)
    _check_size(*image.size, max_pixels)
    try:
        image.load()
        watch()
        upright = _TURNS.get(_orientation(image))
        rgb = _to_rgb(image)
        watch()
        return np.array(rgb if upright is None else rgb.transpose(upright))
    except ImageError:
        raise
    except Exception as error:  # damaged files make the decoders raise nearly any class
        raise DamagedImageError(f"the photo is truncated or damaged: {error}") from error


class _WatchedFile(io.BytesIO):
    """A file that Pillow reads and decodes piece by piece; `alive` is called at every piece."""

    def __init__(self, data: bytes, watch: Watch) -> None:
        super().__init__(data)
        self._watch = watch

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        self._watch()
        return super().read(size)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's plug-in without its search of the whole EXIF block for the resolution: see `_orientation`."""

    def _read_dpi_from_exif(self) -> None:
        """Not needed here, so the EXIF block is not read."""


def _limited(alive: Watch | None) -> Watch:
    """The function to call while this thread decodes one photo; it raises when decoding takes too long."""
    end = time.thread_time() + MAX_DECODING_S

    def watch() -> None:
        if alive is not None:
            alive()
        if time.thread_time() > end:
            raise ImageError(
                f"the photo takes more than {MAX_DECODING_S:g} s to decode, which is the limit: it is not stored as "
                "cameras do it; save it anew as a JPEG"
            )

    return watch


def _open(data: bytes, max_pixels: int, watch: Watch) -> Image.Image:
    """The picture with its header read.

    Pillow's `Image.open` would try forty formats and warn about large pictures through the process-wide warning
    filter; the three plug-ins are called directly instead.
    """
    file = _WatchedFile(data, watch)
    try:
        if data[:3] == b"\xff\xd8\xff":
            _check_scans(_scans(data, watch))
            return _Jpeg(file)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return PngImagePlugin.PngImageFile(file)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            _check_size(*_webp_size(data), max_pixels)
            return WebPImagePlugin.WebPImageFile(file)
    except ImageError:
        raise
    except Exception as error:  # damaged headers make the decoders raise nearly any class
        raise DamagedImageError(f"the photo's header is damaged: {error}") from error
    raise UnsupportedImageError(f"the photo ({len(data)} bytes) {how_to_convert(data)}")


def _scans(data: bytes, watch: Watch) -> int:
    """Start-of-scan markers of a JPEG, up to its end: thumbnails lie inside segments, other pictures after the end."""
    scans, at = 0, 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        watch()
        at, marker = found.end(), found[1][0]
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _check_scans(scans: int) -> None:
    if scans > MAX_SCANS:
        raise ImageError(
            f"the JPEG has {scans} scans (passes over the picture): at most {MAX_SCANS} are allowed, and encoders make "
            "10 or fewer; save it anew"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from a WebP header. Pillow's plug-in allocates the canvas before the size can be checked."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10 or kind not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise DamagedImageError("the photo's header is damaged: no size where WebP has it")
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"the photo has {width}x{height} = {width * height / 1e6:.1f} megapixels: at most {max_pixels / 1e6:g} are "
            "allowed; send a smaller one"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) .. 8, or else XMP's; a photo whose block cannot be read is taken as it is stored.

    Pillow's `getexif` would copy the content of every field; if thousands of fields refer to the same bytes, a file of
    17 KB becomes gigabytes.
    """
    exif = image.info.get("exif")
    if exif is None and (raw := image.info.get("Raw profile type exif")) is not None:  # ImageMagick's, in PNG files
        try:
            exif = bytes.fromhex("".join(str(raw).split("\n")[3:]))
        except ValueError:
            exif = b""
    if (found := _exif_orientation(exif or b"")) is not None:
        return found
    xmp = image.info.get(XMP_KEY) or image.info.get("xmp") or b""
    match = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return 1 if match is None else int(match[1])


def _exif_orientation(exif: bytes) -> int | None:
    """The field of an EXIF block's first directory (TIFF 6.0, section 2), where there is one."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (offset,) = struct.unpack_from(f"{order}4xI", tiff)
        (fields,) = struct.unpack_from(f"{order}H", tiff, offset)
        for start in range(offset + 2, offset + 2 + 12 * fields, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, start)
            if tag == _EXIF_ORIENTATION:
                number = {1: "B", 3: "H", 4: "I"}[kind]  # a SHORT, by the standard
                (value,) = struct.unpack_from(order + number, tiff, start + 8)
                return int(value)
    except (struct.error, KeyError):
        return None
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion would clip at 255. The high byte is what it keeps of 16-bit colour too.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
