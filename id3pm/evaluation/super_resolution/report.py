"""The report on super-resolution: JSON, a markdown table, pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from id3pm.evaluation.files import SCHEMA, new_figure, save_figure, write_json, write_text
from id3pm.evaluation.markdown import head, table
from id3pm.evaluation.super_resolution.study import Comparison, Enlarged

SHOWN = 4  # pictures of each set in the plot


def write_super_resolution_report(
    folder: Path, subject: dict[str, object], comparisons: Sequence[Comparison], shown: Sequence[Enlarged]
) -> None:
    """Writes super_resolution.json, super_resolution.md and super_resolution.png.

    Args:
        folder: Made if it does not exist.
        subject: What was evaluated.
        comparisons: One per set of pictures.
        shown: The sets' pictures; some are shown.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {"schema": SCHEMA, "subject": subject, "comparisons": [dataclasses.asdict(found) for found in comparisons]}
    write_json(folder / "super_resolution.json", data)
    write_text(folder / "super_resolution.md", super_resolution_markdown(subject, comparisons))
    figure = new_figure(width=10, height=2.3 * SHOWN * len(shown))
    panels = figure.subplots(SHOWN * len(shown), 4, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for number, enlarged in enumerate(shown):
        columns = {
            "input": enlarged.low,
            "Lanczos": enlarged.lanczos,
            "network": enlarged.network,
            "truth": enlarged.truth,
        }
        for row in range(min(SHOWN, len(enlarged.truth))):
            for column, (title, images) in enumerate(columns.items()):
                panel = panels[number * SHOWN + row, column]
                panel.imshow(images[row], interpolation="nearest")
                panel.set_title(f"{title}, {images.shape[1]} px", fontsize=8)
    save_figure(folder / "super_resolution.png", figure, generated=True)


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
