"""The pictures of one subject as one PNG: what was shown, and below it what each model's ID vector became."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.analysis.study import Block
from id3pm.analysis.summary import bands, named
from id3pm.analysis.variants import ORIGINAL, Picture
from id3pm.images import encode_png
from id3pm.sheets.grid import Tile, grid

TILE = 112
NO_FACE = np.full((TILE, TILE, 3), 235, np.uint8)


def write_sheet(file: Path, blocks: Sequence[Block], seed: int) -> None:
    """Draws one subject under every model, a band of rows per family; the PNG says that it shows generated faces.

    Args:
        file: Where to.
        blocks: Of the same subject, one per model.
        seed: Of the images, for the title.
    """
    subject = blocks[0].subject
    pictures = subject.pictures
    rows: list[list[Tile | None]] = []
    labels = []
    for family, columns in bands(pictures).items():
        rows.append([_shown(pictures[row]) for row in columns])
        labels.append(named(family) if family != ORIGINAL else "")
        for block in blocks:
            rows.append([_generated(block, row) for row in columns])
            limit = block.opinions[0].threshold
            labels.append(block.model + ("" if limit is None else f"\nlimit {limit.degrees:.0f}°"))
    what = "picture | generated image to the original" if subject.person else "generated image to the picture"
    sheet = grid(rows, title=f"{subject.name}: angles {what}; seed {seed}", labels=labels, size=TILE)
    file.write_bytes(encode_png(np.asarray(sheet), generated=True))


def _shown(picture: Picture) -> Tile:
    blank = np.full((TILE, TILE, 3), 255, np.uint8)
    return Tile(blank if picture.image is None else picture.image, _short(picture.label))


def _generated(block: Block, row: int) -> Tile:
    opinion = block.opinions[0]
    image: NDArray[np.uint8] | None = block.images[row]
    if image is None:
        return Tile(NO_FACE, "no face")
    if not block.subject.person:
        return Tile(image, angle(opinion.own[row]))
    if block.subject.pictures[row].family == ORIGINAL:
        return Tile(image, angle(opinion.kept[row]))
    return Tile(image, f"{angle(opinion.drift[row])} | {angle(opinion.kept[row])}")


def angle(value: float) -> str:
    """An angle for people; NaN is a picture in which no face was found."""
    return "no face" if np.isnan(value) else f"{value:.0f}°"


def _short(label: str, longest: int = 17) -> str:
    return label if len(label) <= longest else label[: longest - 1] + "…"
