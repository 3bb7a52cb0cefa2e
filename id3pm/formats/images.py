"""Pictures: uint8 [H, W, 3] <-> float32 [3, H, W] in [-1, 1], and PNG files.

The only place where this package converts between the two.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from id3pm.errors import ImageError
from id3pm.formats.array_api import array_namespace, clamp

XMP_KEY = "XML:com.adobe.xmp"
"""The PNG text chunk that holds XMP metadata."""
GENERATED_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
"""Metadata of generated pictures: IPTC Photo Metadata Standard, Digital Source Type."""
Array = Any  # numpy.ndarray, torch.Tensor, cupy.ndarray, or any other of the array API standard


def to_chw(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures as input of a U-Net: uint8 [..., H, W, 3] -> float32 [..., 3, H, W] in [-1, 1] (x / 127.5 - 1)."""
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise ImageError(f"images are {images.dtype} {images.shape}: need uint8 [..., H, W, 3]")
    scaled = images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def to_uint8(x: Array) -> Array:
    """Pictures for display: float32 [..., 3, H, W] in [-1, 1] -> uint8 [..., H, W, 3], where `x` is.

    Values outside are clipped and fractions are cut off, as guided-diffusion's sampling scripts do. NaN becomes 0.
    """
    if x.ndim < 3 or x.shape[-3] != 3:
        raise ImageError(f"x is {x.shape}: need [..., 3, H, W]")
    if is_numpy_array(x):
        return _numpy_uint8(x)
    xp = array_namespace(x)
    scaled = clamp((x + 1.0) * 127.5, 0.0, 255.0)
    pixels = xp.astype(xp.where(xp.isnan(scaled), xp.zeros_like(scaled), scaled), xp.uint8)
    moved = xp.moveaxis(pixels, -3, -1)
    return xp.reshape(xp.reshape(moved, (-1,)), moved.shape)  # contiguous


def _numpy_uint8(x: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The same bits in a fifth of the time: in place, for fresh pages cost more than the arithmetic."""
    scaled = x + np.float32(1.0)
    scaled *= np.float32(127.5)
    np.fmax(scaled, 0.0, out=scaled)  # of NaN and 0 that is 0
    np.minimum(scaled, 255.0, out=scaled)
    planes = scaled.astype(np.uint8)
    pixels = np.empty((*x.shape[:-3], *x.shape[-2:], 3), np.uint8)
    for channel in range(3):  # several times as fast as one copy with all axes moved
        pixels[..., channel] = planes[..., channel, :, :]
    return pixels


def area_reduce(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means of blocks of factor x factor pixels of uint8 [N, H, W, 3], as uint8: what the first stage passes on."""
    count, height, width, _ = images.shape
    blocks = images.reshape(count, height // factor, factor, width // factor, factor, 3)
    # Pixel by pixel of a block: several times faster than numpy's sum over two inner axes.
    sums = np.zeros((count, height // factor, width // factor, 3), np.uint32)
    for row in range(factor):
        for column in range(factor):
            sums += blocks[:, :, row, :, column]
    means: NDArray[np.float32] = sums.astype(np.float32) / np.float32(factor**2)
    return np.rint(means).astype(np.uint8)


def encode_png(
    image: NDArray[np.uint8],
    text: Mapping[str, str] | None = None,
    *,
    generated: bool = False,
    compress_level: int = 6,
) -> bytes:
    """A PNG file.

    Args:
        image: uint8 [H, W, 3], RGB.
        text: Text chunks to store in the file; keys of 1 to 79 Latin-1 characters.
        generated: Say in the metadata that a model made the picture: `GENERATED_XMP`.
        compress_level: Of zlib, 0 .. 9.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ImageError(f"image is {image.dtype} {image.shape}: need uint8 [H, W, 3]")
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, format="PNG", pnginfo=png_info(text, generated=generated), compress_level=compress_level
    )
    return buffer.getvalue()


def png_info(text: Mapping[str, str] | None = None, *, generated: bool = False) -> PngImagePlugin.PngInfo:
    """The same metadata, for what Pillow writes elsewhere: its argument `pnginfo`."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    if generated:
        info.add_itxt(XMP_KEY, GENERATED_XMP)
    return info
