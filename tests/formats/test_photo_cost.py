"""A guess of a photograph's decoding, compared with decoding it."""

from __future__ import annotations

import base64
import io
import random
import struct
import time

import numpy as np
import pytest
from PIL import Image

from id3pm.formats.photo_cost import FIXED_S, decoding_s
from id3pm.formats.photo_decoding import MAX_DECODING_S, MAX_SCANS, decode_photo

SIZE = (1200, 900)
PIXELS = SIZE[0] * SIZE[1]


def file(format: str, size: tuple[int, int] = SIZE, **options: object) -> bytes:
    coarse = np.random.Generator(np.random.Philox(1)).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, format, **options)
    return buffer.getvalue()


def with_scans(data: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    at = data.rindex(b"\xff\xda")
    return data[:-2] + data[at:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


PROGRESSIVE = file("JPEG", progressive=True)
FILES = {
    "jpeg": file("JPEG"),
    "progressive": PROGRESSIVE,
    "64 scans": with_scans(PROGRESSIVE, 64),
    "png": file("PNG"),
    "webp": file("WEBP"),
    "lossless webp": file("WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_the_guess_is_of_the_right_size(name: str) -> None:
    """It holds on any machine within a factor that leaves no doubt which photograph is the slower one."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        decode_photo(FILES[name])
        seconds.append(time.thread_time() - began)
    assert 0.2 < min(seconds) / (decoding_s(FILES[name], whole=True) - FIXED_S) < 5.0


def test_more_passes_and_more_pixels_are_more_work() -> None:
    usual, slow = decoding_s(PROGRESSIVE), decoding_s(FILES["64 scans"])
    assert slow - FIXED_S > 3 * (usual - FIXED_S)
    assert decoding_s(file("JPEG", (2400, 1800))) - FIXED_S > 3 * (decoding_s(FILES["jpeg"]) - FIXED_S)


@pytest.mark.parametrize("name", FILES)
def test_text_is_guessed_like_bytes(name: str) -> None:
    data = FILES[name]
    text = base64.b64encode(data)
    for sent in (text, base64.encodebytes(data), b"data:image/png;base64," + text):
        if name == "64 scans":
            assert decoding_s(sent) < decoding_s(data), "known when it is decoded"
        else:
            assert decoding_s(sent) == pytest.approx(decoding_s(data), rel=0.1)


def test_passes_behind_the_first_megabyte_are_counted_when_the_whole_file_is_looked_at() -> None:
    data = FILES["64 scans"]
    at = data.index(b"\xff\xda")
    padded = data[:at] + (b"\xff\xe1\xff\xff" + bytes(0xFFFD)) * 20 + data[at:]
    assert decoding_s(padded) < 0.5 * decoding_s(padded, whole=True)
    assert decoding_s(padded, whole=True) == pytest.approx(decoding_s(data, whole=True), rel=0.2)


def test_metadata_before_the_size_is_passed_over() -> None:
    data = FILES["jpeg"]
    segment = b"\xff\xe1" + struct.pack(">H", 60_000) + b"\xff\xc0" * 29_999
    assert decoding_s(data[:2] + segment * 3 + data[2:]) == pytest.approx(decoding_s(data), rel=0.1)
    unknown = decoding_s(data[:2] + segment * 10 + data[2:])
    assert unknown > 0.3, "taken for a large one"


def test_what_is_refused_costs_nothing() -> None:
    header = bytearray(FILES["png"])
    header[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    for data in (bytes(header), b"", b"no picture", b"====", b"RIFF", b"\xff\xd8", b"\x89PNG"):
        assert decoding_s(data) <= FIXED_S + 0.6
    assert decoding_s(bytes(header)) == FIXED_S


def test_a_guess_is_bounded_and_quick_for_any_bytes() -> None:
    random.seed(1)
    worst = b"\xff\xd8" + b"\xff\xe1\x00\x02" * (8 * 2**20)
    cases = [bytes(worst), b"\xff" * 2**24, b"\xff\xd8" * 2**23, b"A" * 2**24, b"/9j/" * 2**22, b" " * 2**24]
    for data in FILES.values():
        for _ in range(50):
            damaged = bytearray(data[: random.randrange(1, len(data))])
            for _ in range(3):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            cases.append(bytes(damaged))
    for case in cases:
        began = time.thread_time()
        assert 0.0 < decoding_s(case) <= FIXED_S + MAX_DECODING_S
        assert time.thread_time() - began < 0.1
    assert MAX_SCANS == 64
