"""Plot of the measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS: Mapping[str, str] = {"fp32": "#4c78a8", "bf16": "#f58518", "int8": "#54a24b", "fp16": "#b279a2"}
PEER = "#b8b8b8"


def speeds(path: Path, results: Mapping[str, Any]) -> None:
    """One panel of bars per network, and one with the presets where they were measured."""
    sizes = results["sizes"]
    presets = [entry for entry in results.get("presets", []) if "seconds_per_image" in entry]
    panels = len(sizes) + bool(presets)
    lines = max([len(size["rows"]) for size in sizes] + [3 * len(presets)])
    columns = min(panels, 2)
    rows = math.ceil(panels / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(6.4 * columns, rows * (1.2 + 0.3 * lines)), squeeze=False, layout="constrained"
    )
    axes = grid.ravel()
    for axis in axes[panels:]:
        axis.set_axis_off()
    for axis, size in zip(axes, sizes, strict=False):
        _size(axis, size)
    if presets:
        _presets(axes[panels - 1], presets)
    machine = results["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores: higher is better", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _size(axis: Any, size: Mapping[str, Any]) -> None:
    rows = size["rows"]
    values = [row["speed"] for row in rows]
    ranges = [
        [row["speed"] - row["speed_range"][0] for row in rows],
        [row["speed_range"][1] - row["speed"] for row in rows],
    ]
    colours = [COLOURS.get(row["precision"], PEER) if row["ours"] else PEER for row in rows]
    axis.barh(range(len(rows)), values, color=colours, xerr=ranges, error_kw={"lw": 0.8, "ecolor": "#404040"})
    for place, row in enumerate(rows):
        end = row["speed_range"][1]
        text = f" {row['speed']:.2f}x   {row['ms_per_step']:.0f} ms, {row['gflops']:.0f} GFLOP/s"
        axis.text(end, place, text, va="center", fontsize=8)
    axis.axvline(1.0, color="#404040", lw=0.8, ls=":")
    axis.set_xlim(0, 1.55 * max(row["speed_range"][1] for row in rows))
    title = f"{size['size']}, {size['parameters'] / 1e6:.1f} M parameters, {size['images']} guided images"
    _finish(axis, [row["name"] for row in rows], title, "speed of a step, eager PyTorch fp32 = 1")


def _presets(axis: Any, presets: Sequence[Mapping[str, Any]]) -> None:
    names, values, colours = [], [], []
    for entry in presets:
        for preset in ("paper", "balanced", "fast"):
            names.append(f"{entry['engine']}, {preset}")
            values.append(1 / entry["seconds_per_image"][preset])
            colours.append(COLOURS.get(entry["engine"].rsplit("-", 1)[-1], PEER))
    axis.barh(range(len(names)), values, color=colours)
    for place, value in enumerate(values):
        axis.text(value, place, f" {value:.2g}", va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 2, 3 * max(values))
    _finish(axis, names, "presets, both stages", "256 px images per second")


def _finish(axis: Any, names: Sequence[str], title: str, label: str) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(label, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
