"""A PIL image as a file that the server decodes to the same pixels as the file it came from."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from id3pm_client._errors import InvalidRequestError

_WITH_ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_MOST = 65535


def picture_file(image: Image.Image) -> bytes:
    """A PNG file of an image of any mode, upright by its EXIF orientation.

    Transparency is sent, and the server lays it on white; 16-bit grey keeps its high byte; palettes, CMYK, YCbCr, HSV
    and LAB become RGB as Pillow converts them.

    Raises:
        InvalidRequestError: The image is empty, cannot be read, or is of a mode whose brightness is not defined (`F`,
            and `I` beyond 0 .. 65535).
    """
    if 0 in image.size:
        raise InvalidRequestError(f"the photo has {image.width} x {image.height} pixels: it is empty")
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError) as error:  # decoded only now, or a closed file
        raise InvalidRequestError(f"the photo cannot be read: {error}") from error
    file = io.BytesIO()
    # Lossless and quick: the server decodes it once and drops it.
    _eight_bit(upright).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _eight_bit(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent."""
    if image.mode.startswith("I"):
        return _high_byte(image)
    if image.mode == "F":
        raise InvalidRequestError(
            "the photo is a PIL image of mode F, whose range of brightness is not defined: scale it to 0 .. 255 and "
            "convert it to L or RGB"
        )
    palette = image.palette if image.mode == "P" else None
    if image.mode in _WITH_ALPHA or "transparency" in image.info or (palette and palette.mode == "RGBA"):
        return image.convert(_PREMULTIPLIED.get(image.mode, image.mode)).convert("RGBA")
    return image.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; Pillow's own conversion would clip at 255."""
    grey = np.asarray(image)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > _MOST:
        raise InvalidRequestError(
            f"the photo is a PIL image of mode {image.mode} with values from {low} to {high}: grey goes from 0 to "
            f"{_MOST}"
        )
    return Image.fromarray((grey >> 8).astype(np.uint8))
