"""Contact sheet of one subject: the pictures, and below each the face generated from each model's ID vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from id3pm.evaluation.robustness.study import Block, Opinion, averaged
from id3pm.evaluation.robustness.summary import bands, named
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL, Picture
from id3pm.formats.images import encode_png

TILE, GAP, LINE, FRAME, CROSS = 112, 8, 19, 3, 6  # pixels
COLUMNS = 8
"""Tiles side by side; wider sheets are unreadable where pages reduce them."""
INK, SOFT, EMPTY = "#1d2129", "#667085", "#eef0f3"
COLOURS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"same": ("#12703d", "#e3f4e9"), "other": ("#a8231c", "#fbe6e4"), "none": (SOFT, EMPTY), "open": (INK, EMPTY)}
)
"""Verdict -> colour of its text and what lies behind it, as in the report."""
Shelf = list[tuple[str, list[int]]]
"""Bands side by side: family, and numbers of its pictures."""


def write_sheet(file: Path, blocks: Sequence[Block], seed: int) -> None:
    """Draws one subject under every model, a band per family; the PNG says that it shows generated faces.

    Args:
        file: Where to.
        blocks: Of the same subject, one per model.
        seed: Of the images, for the title.
    """
    sheet = _Sheet(blocks)
    sheet.draw(seed)
    file.write_bytes(encode_png(np.asarray(sheet.canvas), generated=True))


def angle(value: float) -> str:
    """An angle as text; NaN is a picture in which no face was found."""
    return "no face" if np.isnan(value) else f"{value:.0f}°"


def verdict(opinion: Opinion, value: float) -> str:
    """What an angle means, a key of `COLOURS`: below the threshold, above it, no face, or no threshold."""
    if np.isnan(value):
        return "none"
    if opinion.threshold is None:
        return "open"
    return "same" if value <= opinion.threshold.degrees else "other"


def shown(pictures: Sequence[Picture], row: int) -> NDArray[np.uint8] | None:
    """The picture; for the mean, of which there is none, the pictures that it is the mean of, small."""
    if pictures[row].family != MEAN:
        return pictures[row].image
    small = [pictures[one].image for one in averaged(pictures)]
    side = int(np.ceil(np.sqrt(len(small))))
    cell = 4 * TILE // side  # drawn large, because pages reduce it
    mosaic = np.full((side * cell, side * cell, 3), 255, np.uint8)
    empty = cell * (side - -(-len(small) // side)) // 2
    for number, image in enumerate(small):
        assert image is not None
        top, left = empty + cell * (number // side), cell * (number % side)
        mosaic[top : top + cell, left : left + cell] = cv2.resize(image, (cell, cell), interpolation=cv2.INTER_AREA)
    return mosaic


def _shelves(families: Mapping[str, list[int]]) -> list[Shelf]:
    """Bands packed side by side, each on the first shelf with room for it; those that are too wide are broken."""
    parts: Shelf = []
    for family, rows in families.items():
        first = len(rows) % COLUMNS or COLUMNS  # the shorter part comes first: beside something else
        parts.append((family, rows[:first]))
        parts += [(family, rows[start : start + COLUMNS]) for start in range(first, len(rows), COLUMNS)]
    shelves: list[Shelf] = []
    for part in parts:
        room = [shelf for shelf in shelves if sum(len(rows) for _, rows in shelf) + len(part[1]) <= COLUMNS]
        if room:
            room[0].append(part)
        else:
            shelves.append([part])
    return shelves


class _Sheet:
    """Draws one sheet."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._pictures = blocks[0].subject.pictures
        self._person = blocks[0].subject.person
        self._font, self._bold = ImageFont.load_default(13), ImageFont.load_default(15)
        self._shelves = _shelves(bands(self._pictures))
        ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        names = [self._label(block, number) for block in blocks for number in range(len(block.opinions))]
        lines = [line for name in names for line in name.split("\n")]
        self._left = int(max(ruler.textlength(line, font=self._font) for line in lines)) + 2 * GAP
        # A heading, the picture and its label; for each model the image and a line for each judge.
        self._below = [TILE + GAP + LINE * len(block.opinions) for block in blocks]
        self._height = LINE + GAP + TILE + LINE + GAP + sum(self._below) + GAP
        width = self._left + COLUMNS * (TILE + GAP)
        self._top = 4 * LINE + GAP
        self.canvas = Image.new("RGB", (width, self._top + len(self._shelves) * self._height), "white")
        self._pen = ImageDraw.Draw(self.canvas)

    def _label(self, block: Block, number: int) -> str:
        opinion = block.opinions[number]
        name = block.model.replace(" (", "\n(") if number == 0 else opinion.judge
        return name + ("" if opinion.threshold is None else f" {opinion.threshold.degrees:.0f}°")

    def draw(self, seed: int) -> None:
        """Draws the sheet."""
        title = f"{self._blocks[0].subject.name}, seed {seed}"
        self._pen.text((GAP, GAP), title, fill=INK, font=self._bold)
        what = (
            "picture to the original, generated face to the original" if self._person else "generated face to picture"
        )
        self._pen.text(
            (GAP, GAP + LINE), f"Angles: {what}; beside each line its judge with the threshold.", SOFT, self._font
        )
        x = GAP
        for name, text in (("same", "below the threshold"), ("other", "above it"), ("none", "no face found")):
            x += self._pill(x, GAP + 2 * LINE, text, name) + GAP
        for number, shelf in enumerate(self._shelves):
            self._shelf(self._top + number * self._height, shelf)

    def _shelf(self, top: int, shelf: Shelf) -> None:
        column = 0
        for family, rows in shelf:
            x = self._left + column * (TILE + GAP)
            self._pen.text((x, top), "original" if family == ORIGINAL else named(family), fill=INK, font=self._bold)
            for offset, row in enumerate(rows):
                self._column(x + offset * (TILE + GAP), top + LINE + GAP, row)
            column += len(rows)
        y = top + LINE + GAP + TILE + LINE + GAP
        for block, height in zip(self._blocks, self._below, strict=True):
            for number in range(len(block.opinions)):
                place = y + TILE + 4 + number * LINE
                self._pen.multiline_text(
                    (self._left - GAP, place), self._label(block, number), SOFT, self._font, "ra", align="right"
                )
            y += height

    def _column(self, x: int, y: int, row: int) -> None:
        picture = self._pictures[row]
        image = shown(self._pictures, row)
        self._tile(x, y, image, None)
        if picture.family != ORIGINAL:
            self._pen.text((x + TILE / 2, y + TILE + 2), self._short(picture.label), SOFT, self._font, "ma")
        y += TILE + LINE + GAP
        for block, height in zip(self._blocks, self._below, strict=True):
            own = block.opinions[0]
            self._tile(x, y, block.images[row], verdict(own, (own.kept if self._person else own.own)[row]))
            if block.images[row] is not None:
                for number, opinion in enumerate(block.opinions):
                    self._angles(x, y + TILE + 2 + number * LINE, opinion, row)
            y += height

    def _tile(self, x: int, y: int, image: NDArray[np.uint8] | None, mark: str | None) -> None:
        box = (x, y, x + TILE - 1, y + TILE - 1)
        if image is None:
            self._pen.rectangle(box, EMPTY)
            self._pen.text((x + TILE / 2, y + TILE / 2), "no face found", SOFT, self._font, "mm")
            return
        how = Image.Resampling.BICUBIC if len(image) < TILE else Image.Resampling.LANCZOS
        self.canvas.paste(Image.fromarray(image).resize((TILE, TILE), how), (x, y))
        if mark is not None:
            self._pen.rectangle(box, outline=COLOURS[mark][0], width=FRAME)

    def _angles(self, x: int, y: int, opinion: Opinion, row: int) -> None:
        values = [opinion.kept[row]] if self._person else [opinion.own[row]]
        if self._person and self._pictures[row].family != ORIGINAL:
            values.insert(0, opinion.drift[row])
        pills = [(angle(value), verdict(opinion, value)) for value in values]
        x += (TILE - sum(self._width(*pill) for pill in pills) - 4 * (len(pills) - 1)) // 2
        for text, mark in pills:
            x += self._pill(x, y, text, mark) + 4

    def _width(self, text: str, mark: str) -> int:
        return int(self._pen.textlength(text, font=self._font)) + 8 + (CROSS + 4) * (mark == "other")

    def _pill(self, x: int, y: int, text: str, mark: str) -> int:
        """Text on its colour, with a cross behind it where it means another person; its width."""
        ink, back = COLOURS[mark]
        width, middle = self._width(text, mark), y + (LINE - 3) // 2
        self._pen.rounded_rectangle((x, y, x + width, y + LINE - 3), 4, back)
        self._pen.text((x + 4, middle), text, ink, self._font, "lm")
        if mark == "other":  # the font has none
            left, top = x + width - 4 - CROSS, middle - CROSS // 2
            self._pen.line((left, top, left + CROSS, top + CROSS), ink, 2)
            self._pen.line((left, top + CROSS, left + CROSS, top), ink, 2)
        return width

    def _short(self, label: str) -> str:
        """The label, cut to the width of a tile."""
        while self._pen.textlength(label, font=self._font) > TILE:
            label = label.removesuffix("…")[:-1] + "…"
        return label
