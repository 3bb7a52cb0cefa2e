"""Draws pictures in rows and columns with labels and captions as one image, and joins such images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GAP, LINE, FONT_SIZE, TITLE_SIZE = 8, 21, 16, 20
WHITE, BLACK, GREY, BAND, EMPTY = "white", "black", "#5a5a5a", "#e6e6e6", "#f2f2f2"
NARROWEST = 400
"""Pixels below which a title is not wrapped."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet.

    Attributes:
        image: uint8 [H, W, 3], RGB; any square size. `None` for an empty box.
        caption: Text below it, one or more lines: the first in black, the others in grey.
    """

    image: NDArray[np.uint8] | None
    caption: str = ""


def grid(
    rows: Sequence[Sequence[Tile | None]],
    *,
    title: str = "",
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    ends: Sequence[tuple[str, str]] = (),
    size: int = 128,
) -> Image.Image:
    """Draws tiles in rows, left to right, top to bottom.

    Args:
        rows: Tiles; `None` leaves a place empty. Rows may be of different lengths.
        title: Above everything; see `titled`.
        columns: Headings of the columns, from the left; fewer than there are columns leave the rest without.
        labels: Text to the left of each row, from the top; line breaks are kept.
        ends: Short labels of the left and the right end of each row.
        size: Side of every tile in pixels. Smaller pictures are enlarged smoothly, larger ones reduced.

    Returns:
        The sheet, RGB, white behind.
    """
    captions = [tile.caption for row in rows for tile in row if tile is not None]
    cell = max([size, *map(_width, captions), *map(_width, columns)])
    start = max((_width(low) for low, _ in ends), default=0)
    left = sum(width + GAP for width in (max(map(_width, labels), default=0), start) if width) + GAP
    right = max((_width(high) + GAP for _, high in ends), default=0)
    top = GAP + (LINE + GAP if any(columns) else 0)
    pitch_x, pitch_y = cell + GAP, size + GAP + LINE * max(map(_count, captions), default=0)
    width = left + max(map(len, rows), default=0) * pitch_x
    canvas = Image.new("RGB", (width + right, top + len(rows) * pitch_y), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, heading in enumerate(columns):
        x = left + number * pitch_x
        if heading:
            draw.rectangle((x, GAP, x + cell - 1, GAP + LINE), fill=BAND)
        _write(draw, x + cell / 2, GAP + 1, heading, "m")
    for number, row in enumerate(rows):
        y = top + number * pitch_y
        if number < len(labels):
            _write(draw, GAP, y + (size - LINE * _count(labels[number])) / 2, labels[number], "l")
        if number < len(ends):
            low, high = ends[number]
            _write(draw, left - GAP, y + (size - LINE * _count(low)) / 2, low, "r", BLACK)
            _write(draw, width, y + (size - LINE * _count(high)) / 2, high, "l", BLACK)
        for column, tile in enumerate(row):
            if tile is not None:
                _draw_tile(canvas, tile, left + column * pitch_x + (cell - size) // 2, y, size)
    return titled(canvas, title) if title else canvas


def _draw_tile(canvas: Image.Image, tile: Tile, x: int, y: int, size: int) -> None:
    draw = ImageDraw.Draw(canvas)
    if tile.image is None:
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=EMPTY)
    else:
        canvas.paste(_scaled(tile.image, size), (x, y))
    _write(draw, x + size / 2, y + size + 2, tile.caption, "m")


def titled(sheet: Image.Image, title: str) -> Image.Image:
    """A sheet below a title, wrapped to its width: the first line is large, the others are notes."""
    head, *notes = title.split("\n")
    width = max(sheet.width, NARROWEST)
    large, small = ImageFont.load_default(TITLE_SIZE), ImageFont.load_default(FONT_SIZE)
    lines = [(line, large, BLACK) for line in _wrapped(head, large, width - 2 * GAP)]
    lines += [(line, small, GREY) for note in notes for line in _wrapped(note, small, width - 2 * GAP)]
    height = GAP + (TITLE_SIZE - FONT_SIZE + LINE) * len(lines)
    canvas = Image.new("RGB", (width, height + sheet.height), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, (line, font, colour) in enumerate(lines):
        draw.text((GAP, GAP + number * (TITLE_SIZE - FONT_SIZE + LINE)), line, fill=colour, font=font)
    canvas.paste(sheet, (0, height))
    return canvas


def beside(*sheets: Image.Image) -> Image.Image:
    """Sheets from left to right, their tops in line."""
    canvas = Image.new("RGB", (sum(one.width for one in sheets), max(one.height for one in sheets)), WHITE)
    for number, one in enumerate(sheets):
        canvas.paste(one, (sum(before.width for before in sheets[:number]), 0))
    return canvas


def below(*sheets: Image.Image, title: str = "") -> Image.Image:
    """Sheets from top to bottom, their left edges in line; for the title see `titled`."""
    canvas = Image.new("RGB", (max(one.width for one in sheets), sum(one.height for one in sheets)), WHITE)
    for number, one in enumerate(sheets):
        canvas.paste(one, (0, sum(before.height for before in sheets[:number])))
    return titled(canvas, title) if title else canvas


def _count(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _width(text: str) -> int:
    font = ImageFont.load_default(FONT_SIZE)
    return max((int(font.getlength(line)) + 1 for line in text.split("\n")), default=0) if text else 0


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """A text as lines that are no wider than `width` pixels, broken between words."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, side: str, rest: str = GREY) -> None:
    """Lines from y downwards; `side` of each is at x: l, m or r. The first is black, the `rest` of that colour."""
    font = ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(text.split("\n")):
        draw.text((x, y + number * LINE), line, fill=rest if number else BLACK, font=font, anchor=f"{side}a")


def mosaic(images: NDArray[np.uint8], gap: int = 2) -> NDArray[np.uint8]:
    """Images as one square picture, left to right, top to bottom; white between them and where there is none.

    Args:
        images: uint8 [N, S, S, 3].
        gap: Pixels between two of them.

    Returns:
        uint8 [T, T, 3].
    """
    count, side = images.shape[:2]
    across = math.ceil(math.sqrt(count))
    total = across * (side + gap) - gap
    picture = np.full((total, total, 3), 255, np.uint8)
    for number, image in enumerate(images):
        y, x = (part * (side + gap) for part in divmod(number, across))
        picture[y : y + side, x : x + side] = image
    return picture


def _scaled(image: NDArray[np.uint8], size: int) -> Image.Image:
    picture = Image.fromarray(image)
    how = Image.Resampling.BICUBIC if picture.width < size else Image.Resampling.LANCZOS
    return picture.resize((size, size), how)
