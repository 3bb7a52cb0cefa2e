"""The measurements as JSON, as Markdown tables and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def write(out: Path, results: dict[str, Any]) -> None:
    """Writes bench.json, bench.md and bench.png into `out`."""
    (out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "bench.md").write_text(markdown(results))
    _plot(out / "bench.png", results["sizes"])


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    machine = results["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['instructions'])}; torch {machine['torch']}.",
        "",
    ]
    for size in results["sizes"]:
        lines += [*_size(size), ""]
    if "presets" in results:
        lines += ["Presets, both stages, in process:", ""]
        lines += table(
            ["preset", "images", "s per image"],
            [[row["preset"], str(row["images"]), f"{row['seconds_per_image']:.1f}"] for row in results["presets"]],
        )
        both = results["cascade"]
        lines += ["", f"Both stages, {both['images']} images, {both['steps']} steps in each stage:", ""]
        rows = [
            [
                row["name"],
                f"{row['seconds']:.2f} ± {row['spread']:.0%}",
                f"{row['images_per_s']:.2f}",
                f"{row['rss_gib']:.2f}",
            ]
            for row in both["rows"]
        ]
        lines += [*table(["way", "s", "images/s", "memory, GiB"], rows), ""]
    return "\n".join(lines)


def _size(size: dict[str, Any]) -> list[str]:
    lines = [
        f"**{size['size']}**: {size['parameters'] / 1e6:.1f} M parameters, {size['gflop_per_evaluation']:.1f} GFLOP "
        f"per evaluation; {size['images']} guided images, ddpm, {size['steps']} steps, median of {size['repeats']} "
        "rounds. "
        f"Peak of a matrix product: {size['matmul_gflops']:.0f} GFLOP/s. "
        f"diffusers' network has {size['diffusers_parameters'] / 1e6:.1f} M parameters.",
        "",
    ]
    header = ["way", "ms per step", "speed", "images/s at 250 steps", "GFLOP/s", "of peak", "outside U-Net"]
    header += ["peak memory, GiB", "PSNR to eager, dB"]
    rows = [
        [
            row["name"],
            f"{row['ms_per_step']:.1f} ± {row['spread']:.0%}",
            f"{row['speed']:.2f}x",
            f"{row['images_per_s_250_steps']:.3g}",
            f"{row['gflops']:.0f}",
            f"{row['of_peak']:.0%}",
            f"{row['outside_unet_ms_per_step']:.1f} ms, {row['outside_unet']:.1%}",
            f"{row['peak_rss_gib']:.2f}",
            f"{row['psnr_db']:.0f}" if "psnr_db" in row else "",
        ]
        for row in size["rows"]
    ]
    lines += table(header, rows)
    lines += [f"\nNot built: {precision}: {why}" for precision, why in size["not_built"].items()]
    return lines


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def _plot(path: Path, sizes: list[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(1, len(sizes), figsize=(5 * len(sizes), 3.2), squeeze=False, layout="constrained")
    for axis, size in zip(axes[0], sizes, strict=True):
        names = [row["name"] for row in size["rows"]]
        speeds = [row["speed"] for row in size["rows"]]
        colours = ["tab:orange" if name.startswith("ours") else "tab:gray" for name in names]
        bars = axis.barh(names, speeds, color=colours)
        axis.bar_label(bars, fmt="%.2fx", padding=2)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.2 * max(speeds))
        axis.set_title(f"{size['size']}: {size['parameters'] / 1e6:.1f} M parameters")
        axis.set_xlabel("speed, PyTorch eager = 1")
    figure.savefig(path, dpi=120)
    plt.close(figure)
