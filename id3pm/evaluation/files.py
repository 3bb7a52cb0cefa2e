"""The files of a report: each appears whole or not at all, in a folder that is made if it is missing."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from id3pm.errors import MissingExtraError
from id3pm.formats.images import png_info
from id3pm.installation import how_to_install

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

SCHEMA = 1  # of the JSON reports
SHORT = 12  # hexadecimal digits of a hash in a report


def new_figure(width: float, height: float) -> Figure:
    """An empty matplotlib figure of this size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError(f"plots need matplotlib: {how_to_install('evaluate')}") from error
    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def save_figure(file: Path, figure: Figure, *, generated: bool = False) -> None:
    """Writes a PNG that appears whole or not at all.

    Args:
        file: The file.
        figure: From `new_figure`.
        generated: It shows generated faces, and says so in its metadata.
    """
    partial = _partial(file)
    figure.savefig(partial, dpi=110, format="png", pil_kwargs={"pnginfo": png_info(generated=generated)})
    partial.replace(file)


def save_sheet(file: Path, sheet: Image.Image) -> None:
    """Writes a PNG of generated faces, which says so in its metadata; it appears whole or not at all."""
    partial = _partial(file)
    sheet.save(partial, format="png", pnginfo=png_info(generated=True))
    partial.replace(file)


def write_json(file: Path, data: object) -> None:
    """Writes JSON, with null for NaN and infinity, which JSON does not have."""
    write_text(file, json.dumps(_finite(data), indent=2, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all."""
    partial = _partial(file)
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _partial(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
