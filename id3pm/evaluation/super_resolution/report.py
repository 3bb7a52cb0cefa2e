"""The report on super-resolution: JSON, a markdown table, pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.files import SCHEMA, save_sheet, write_json, write_text
from id3pm.evaluation.markdown import head, table
from id3pm.evaluation.super_resolution.study import Comparison, Enlarged

SHOWN = 4  # pictures of each set in the sheet
SIDE = 256  # of a picture in the sheet, pixels


def write_super_resolution_report(
    folder: Path, subject: dict[str, object], comparisons: Sequence[Comparison], shown: Sequence[Enlarged]
) -> None:
    """Writes super_resolution.json, super_resolution.md and super_resolution.png.

    Args:
        folder: Made if it does not exist.
        subject: What was evaluated.
        comparisons: One per set of pictures.
        shown: The sets' pictures; some are shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {"schema": SCHEMA, "subject": subject, "comparisons": [dataclasses.asdict(found) for found in comparisons]}
    write_json(folder / "super_resolution.json", data)
    write_text(folder / "super_resolution.md", super_resolution_markdown(subject, comparisons))
    rows = [
        [Tile(_enlarged(images[row]), f"{title}, {images.shape[1]} px") for title, images in _columns(enlarged).items()]
        for enlarged in shown
        for row in range(min(SHOWN, len(enlarged.truth)))
    ]
    save_sheet(folder / "super_resolution.png", grid(rows, size=SIDE))


def _columns(enlarged: Enlarged) -> dict[str, NDArray[np.uint8]]:
    """The pictures of a set, uint8 [N, S, S, 3], by the title of their column."""
    return {
        "input": enlarged.low,
        "Lanczos": enlarged.lanczos,
        "network": enlarged.network,
        "truth": enlarged.truth,
    }


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Its pixels as squares, as far as they fit a tile."""
    factor = max(SIDE // len(image), 1)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def super_resolution_markdown(subject: dict[str, object], comparisons: Sequence[Comparison]) -> str:
    """The comparison as a table."""
    rows = [
        (
            f"{found.count} {found.pictures}",
            f"{found.sizes[0]} -> {found.sizes[1]}",
            quality.method,
            f"{quality.psnr:.2f}",
            f"{quality.ssim:.3f}",
            f"{quality.perceptual:.3f}",
            "" if quality.identity is None else _identity(quality.identity),
            "" if quality.no_face is None else f"{quality.no_face:.1%}",
        )
        for found in comparisons
        for quality in found.qualities
    ]
    heads = ("pictures", "sizes", "method", "PSNR (dB)", "SSIM", "perceptual distance", "identity", "no face")
    return "\n".join([*head("Super-resolution against Lanczos", subject), *table(heads, rows)]) + "\n"


def _identity(mean: float) -> str:
    return "no face" if math.isnan(mean) else f"{mean:.3f}"
