"""Promises of id3pm.formats.images."""

import io
import struct
import tracemalloc
import zlib
from xml.etree import ElementTree

import array_api_strict
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from id3pm.errors import ImageError
from id3pm.formats import photo_decoding
from id3pm.formats.images import encode_png, to_chw, to_uint8
from id3pm.formats.photo_decoding import decode_photo

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(0, 240, 12), np.arange(0, 240, 20)), axis=-1).astype(np.uint8)
SMOOTH = np.concatenate([SMOOTH, SMOOTH[..., :1]], axis=-1)  # [12, 20, 3]: what JPEG keeps well


def file(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width, height):
    """A PNG that is nothing but a valid header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def webp_header(width, height):
    """An extended WebP that claims a canvas and has an empty one-pixel picture."""
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", len(canvas)) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


REAL_FILES = [
    file(Image.fromarray(PIXELS)),
    file(Image.fromarray(PIXELS), "JPEG"),
    file(Image.fromarray(PIXELS), "JPEG", progressive=True, exif=Image.Exif()),
    file(Image.fromarray(PIXELS), "WEBP"),
    file(Image.fromarray(PIXELS), "WEBP", lossless=True),
    file(Image.fromarray(PIXELS).quantize(16), "PNG", transparency=3),
]


def test_unet_input_is_guided_diffusions_scaling():
    x = to_chw(np.array([[[0, 127, 255]]], dtype=np.uint8))
    assert x.dtype == np.float32
    assert x.shape == (3, 1, 1)
    np.testing.assert_allclose(x[:, 0, 0], [-1.0, 127 / 127.5 - 1, 1.0], rtol=1e-6)


def test_output_is_clipped_and_truncated_as_in_guided_diffusion():
    x = np.array([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0], dtype=np.float32)
    rows = np.broadcast_to(x[:, None, None, None], (6, 3, 1, 1))
    # ((x + 1) * 127.5).clamp(0, 255).to(uint8): 0.0 -> 127.5 -> 127
    np.testing.assert_array_equal(to_uint8(rows)[:, 0, 0, 0], [0, 0, 127, 254, 255, 255])


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_numpy_gives_the_bits_of_every_other_library(batch):
    values = np.random.default_rng(0).uniform(-1.5, 1.5, (*batch, 3, 6, 7)).astype(np.float32)
    values.flat[:6] = [np.nan, np.inf, -np.inf, 1.0, -1.0, np.nextafter(np.float32(1.0), np.float32(0.0))]
    moved = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -3, -1)), -1, -3)  # another layout in memory
    expected = np.asarray(to_uint8(array_api_strict.asarray(values)))
    for given_values in (values, moved):
        pixels = to_uint8(given_values)
        assert pixels.flags.c_contiguous and pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, expected)
    assert pixels.reshape(*batch, -1)[..., 0].flat[0] == 0  # NaN


@given(st.integers(0, 255), st.sampled_from([(), (1,), (2, 2)]))
def test_every_pixel_value_survives_the_round_trip_within_one(value, batch):
    images = np.full((*batch, 2, 3, 3), value, dtype=np.uint8)
    back = to_uint8(to_chw(images))
    assert back.shape == images.shape
    assert np.abs(back.astype(int) - images).max() <= 1  # truncation may cost one level


@pytest.mark.parametrize("images", [PIXELS.astype(np.float32), PIXELS[..., :2], PIXELS[0]])
def test_wrong_dtype_or_shape_is_refused(images):
    with pytest.raises(ImageError, match="need uint8"):
        to_chw(images)
    with pytest.raises(ImageError, match="need uint8"):
        encode_png(images)


def test_wrong_tensor_shape_is_refused():
    with pytest.raises(ImageError, match=r"need \[..., 3, H, W\]"):
        to_uint8(np.zeros((4, 8, 8), dtype=np.float32))


def test_png_keeps_pixels_and_text():
    data = encode_png(PIXELS, {"id3pm": '{"seed": 7, "name": "Łucja"}'})
    np.testing.assert_array_equal(decode_photo(data), PIXELS)
    assert Image.open(io.BytesIO(data)).text == {"id3pm": '{"seed": 7, "name": "Łucja"}'}


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_lossless_files_are_decoded_exactly(format):
    image = Image.fromarray(PIXELS)
    np.testing.assert_array_equal(decode_photo(file(image, format, lossless=True)), PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {  # how a camera that is held like this stores the upright picture (EXIF 2.3, 4.6.4.A)
        1: SMOOTH,
        2: SMOOTH[:, ::-1],
        3: SMOOTH[::-1, ::-1],
        4: SMOOTH[::-1],
        5: SMOOTH.transpose(1, 0, 2),
        6: np.rot90(SMOOTH, 1),
        7: np.rot90(SMOOTH, 2).transpose(1, 0, 2),
        8: np.rot90(SMOOTH, -1),
    }[orientation]
    data = file(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, quality=100)
    decoded = decode_photo(data)
    assert decoded.shape == SMOOTH.shape
    assert np.abs(decoded.astype(int) - SMOOTH).max() <= 24  # lossy formats; a wrong turn differs by over 100


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's note on it
def test_a_damaged_exif_block_does_not_cost_the_photo():
    data = file(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(40))
    assert decode_photo(data).shape == PIXELS.shape


def test_transparency_is_laid_on_white():
    half = np.dstack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 128, np.uint8)])
    np.testing.assert_allclose(decode_photo(file(Image.fromarray(half))), 127, atol=1)
    hidden = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    assert decode_photo(file(Image.fromarray(hidden))).min() == 255
    palette = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    palette.putpalette([10, 20, 30])
    assert decode_photo(file(palette, transparency=0)).min() == 255
    np.testing.assert_array_equal(decode_photo(file(palette))[0, 0], [10, 20, 30])


def test_sixteen_bit_grey_keeps_its_high_byte():
    grey = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(decode_photo(file(Image.fromarray(grey)))[0, :, 0], [0, 0, 1, 128, 255])


def test_a_generated_png_says_so_in_the_words_of_iptc():
    def xmp(**options):
        return Image.open(io.BytesIO(encode_png(PIXELS, **options))).text.get("XML:com.adobe.xmp")

    assert xmp() is None
    (description,) = ElementTree.fromstring(xmp(generated=True).partition("?>")[2].rpartition("<?")[0]).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    source = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_gives_rgb(mode):
    image = Image.new("RGB", (5, 7), "white").convert(mode)
    np.testing.assert_array_equal(decode_photo(file(image)), np.full((7, 5, 3), 255, np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_jpeg_mode_gives_rgb(mode):
    image = Image.new("RGB", (8, 8), (255, 0, 0)).convert(mode)
    decoded = decode_photo(file(image, "JPEG", quality=100))
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(decoded, expected, atol=3)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(format):
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "lime", "blue")]
    data = file(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode_photo(data)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("header", [png_header, webp_header])
def test_100_megapixels_are_refused_by_the_header(header):
    data = header(12_500, 8_000)
    assert len(data) < 100
    with pytest.raises(ImageError, match=r"12500x8000 = 100\.0 megapixels: at most 40 are allowed"):
        decode_photo(data)


def test_the_pixel_limit_is_inclusive():
    data = file(Image.fromarray(PIXELS))
    assert decode_photo(data, max_pixels=240).shape == PIXELS.shape
    with pytest.raises(ImageError, match="20x12"):
        decode_photo(data, max_pixels=239)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", file(Image.fromarray(PIXELS), "BMP")])
def test_other_formats_are_refused(data):
    with pytest.raises(ImageError, match=rf"{len(data)} bytes\) is .*JPEG, PNG or WebP"):
        decode_photo(data)


@pytest.mark.parametrize("data", REAL_FILES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_photo_is_refused(data, share):
    with pytest.raises(ImageError):
        decode_photo(data[: int(len(data) * share)])


def only_image_errors(data):
    try:
        decoded = decode_photo(data)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBPVP8 ", b"RIFF0000WEBPVP8X"]), st.binary()
)
@example(b"RIFF0000WEBPVP8X", bytes(9))  # the header ends inside the size
def test_random_bytes_raise_only_image_errors(magic, body):
    only_image_errors(magic + body)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(REAL_FILES), st.data())
def test_damaged_files_raise_only_image_errors(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    length = draw.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    only_image_errors(bytes(damaged[:length]))


def scans_added(data, count):
    """A progressive JPEG whose last scan comes again and again."""
    at = data.rindex(b"\xff\xda")
    return data[:-2] + data[at:-2] * count + data[-2:]


PROGRESSIVE = file(Image.fromarray(SMOOTH), "JPEG", progressive=True)


def test_a_jpeg_of_more_scans_than_encoders_make_is_refused_before_it_is_decoded():
    usual = PROGRESSIVE.count(b"\xff\xda")
    assert usual == 10
    decode_photo(scans_added(PROGRESSIVE, 64 - usual))
    with pytest.raises(ImageError, match=r"the JPEG has 65 scans .*at most 64 are allowed.*save it anew"):
        decode_photo(scans_added(PROGRESSIVE, 65 - usual))
    side = 6324
    bomb = scans_added(file(Image.new("L", (side, side), 128), "JPEG", progressive=True), 6000)
    pieces = []
    with pytest.raises(ImageError, match=r"has 6\d\d\d scans"):
        decode_photo(bomb, alive=lambda: pieces.append(1))
    assert len(pieces) < 7000  # one for each marker: nothing was decoded


def test_scans_of_thumbnails_and_of_what_follows_the_picture_do_not_count():
    inside = b"\xff\xda" * 100
    segment = b"\xff\xe5" + struct.pack(">H", len(inside) + 2) + inside
    for data in (PROGRESSIVE[:2] + segment + PROGRESSIVE[2:], PROGRESSIVE + inside):
        np.testing.assert_array_equal(decode_photo(data), decode_photo(PROGRESSIVE))


@pytest.mark.parametrize("data", REAL_FILES)
def test_decoding_gives_signs_of_life(data):
    calls = []
    decode_photo(data, alive=lambda: calls.append(1))
    assert len(calls) >= 3


@pytest.mark.parametrize(
    "data",
    [
        REAL_FILES[0][:33] + chunk(b"abCd", b"") * 300_000 + REAL_FILES[0][33:],
        REAL_FILES[0][:33] + chunk(b"IDAT", b"") * 300_000 + REAL_FILES[0][33:],
        REAL_FILES[1][:2] + b"\xff\xe5\0\2" * 300_000 + REAL_FILES[1][2:],
        REAL_FILES[1][:2] + b"\xff" * 2_000_000 + REAL_FILES[1][2:],
    ],
    ids=["chunks", "empty-idat", "segments", "fill"],
)
def test_decoding_takes_bounded_time_whatever_is_sent(data, monkeypatch):
    monkeypatch.setattr(photo_decoding, "MAX_DECODING_S", 0.05)
    with pytest.raises(ImageError, match=r"takes more than 0.05 s to decode, which is the limit"):
        decode_photo(data)


def exif(fields, total, order="<"):
    """An EXIF block of this length whose fields all have the same bytes as their content; the first is none of ours."""
    start = 14 + 12 * fields
    entries = [struct.pack(order + "HHII", 0x8000 + i, 7, total - start, start) for i in range(fields)]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, fields)
    return head + b"".join(entries) + bytes(4) + bytes(total - start)


def png_with(name, text):
    info = PngImagePlugin.PngInfo()
    info.add_text(name, text, zip=True)
    return file(Image.fromarray(SMOOTH), pnginfo=info)


def raw_profile(block):
    """EXIF as ImageMagick writes it into PNG files."""
    content = b"Exif\0\0" + block
    return png_with("Raw profile type exif", f"\nexif\n{len(content):8d}\n{content.hex()}\n")


def segments(block):
    """EXIF segments as they follow a JPEG's first two bytes, without JFIF, which names a resolution."""
    parts = [b"Exif\0\0" + block[i : i + 65000] for i in range(0, len(block), 65000)]
    return b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)


def test_an_exif_block_of_fields_that_share_their_bytes_takes_no_memory():
    jpeg, png = file(Image.fromarray(SMOOTH), "JPEG"), file(Image.fromarray(SMOOTH))
    for data in (
        raw_profile(exif(1000, 400_000)),
        png[:33] + chunk(b"eXIf", exif(1000, 400_000)) + png[33:],
        jpeg[:2] + segments(exif(1000, 400_000)) + jpeg[20:],
    ):
        tracemalloc.start()
        decode_photo(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * 2**20


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(1, "B3x"), (3, "H2x"), (4, "I")])
def test_the_orientation_is_found_in_either_byte_order_and_as_any_whole_number(order, kind, form):
    field = struct.pack(order + "HHI" + form, 0x0112, kind, 1, 3)
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1) + field + bytes(4)
    for data in (raw_profile(block), REAL_FILES[0][:33] + chunk(b"eXIf", block) + REAL_FILES[0][33:]):
        stored = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(decode_photo(data), np.asarray(stored)[::-1, ::-1])


def test_an_orientation_that_only_xmp_tells_is_applied():
    for xmp in ('<a tiff:Orientation="3"/>', "<tiff:Orientation>3</tiff:Orientation>"):
        np.testing.assert_array_equal(decode_photo(png_with("XML:com.adobe.xmp", xmp)), SMOOTH[::-1, ::-1])


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]))
def test_any_exif_block_leaves_the_pixels(block, head):
    data = REAL_FILES[0][:33] + chunk(b"eXIf", head + block) + REAL_FILES[0][33:]
    assert sorted(decode_photo(data).shape) == [3, 12, 20]
