"""Pictures in rows and columns with labels and captions, as one image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GAP, LINE, FONT_SIZE = 6, 18, 13
WHITE, BLACK, GREY = "white", "black", "#666666"


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet.

    Attributes:
        image: uint8 [H, W, 3], RGB; any square size.
        caption: Short lines below it.
    """

    image: NDArray[np.uint8]
    caption: str = ""


def grid(
    rows: Sequence[Sequence[Tile | None]],
    *,
    title: str = "",
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    size: int = 128,
) -> Image.Image:
    """Draws tiles in rows, left to right, top to bottom.

    Args:
        rows: Tiles; `None` leaves a place empty. Rows may be of different lengths.
        title: Lines above everything.
        columns: Headings of the columns, from the left; fewer than there are columns leave the rest without.
        labels: What stands to the left of each row, from the top; line breaks are kept.
        size: Side of every tile in pixels. Pictures of half of it or less are enlarged without smoothing.

    Returns:
        The sheet, RGB, white behind.
    """
    font = ImageFont.load_default(FONT_SIZE)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    label_width = max((int(ruler.multiline_textbbox((0, 0), text, font=font)[2]) for text in labels), default=0)
    left = GAP + (label_width + GAP if label_width else 0)
    top = GAP + (LINE * len(title.splitlines()) + GAP if title else 0) + (LINE if columns else 0)
    lines = max((len(tile.caption.splitlines()) for row in rows for tile in row if tile is not None), default=0)
    pitch_x, pitch_y = size + GAP, size + GAP + lines * LINE
    width = max((len(row) for row in rows), default=0)
    title_width = max((int(ruler.textlength(line, font=font)) for line in title.splitlines()), default=0) + 2 * GAP
    canvas = Image.new("RGB", (max(left + width * pitch_x, title_width), top + len(rows) * pitch_y), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(title.splitlines()):
        draw.text((GAP, GAP + number * LINE), line, fill=BLACK, font=font)
    for number, heading in enumerate(columns):
        draw.text((left + number * pitch_x + size / 2, top - 3), heading, fill=BLACK, font=font, anchor="md")
    for number, row in enumerate(rows):
        y = top + number * pitch_y
        if number < len(labels):
            draw.multiline_text((GAP, y + size / 2), labels[number], fill=BLACK, font=font, anchor="lm")
        for column, tile in enumerate(row):
            if tile is None:
                continue
            x = left + column * pitch_x
            canvas.paste(_scaled(tile.image, size), (x, y))
            for below, line in enumerate(tile.caption.splitlines()):
                draw.text((x + size / 2, y + size + 2 + below * LINE), line, fill=GREY, font=font, anchor="ma")
    return canvas


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
    how = Image.Resampling.NEAREST if 2 * picture.width <= size else Image.Resampling.LANCZOS
    return picture.resize((size, size), how)
