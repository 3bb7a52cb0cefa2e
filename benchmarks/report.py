"""Reports: JSON and Markdown tables for the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plot

TARGETS: Mapping[str, float] = {"fp32": 1.5, "bf16": 2.0, "int8": 2.5}
"""What we hold ourselves to: speed against eager PyTorch in fp32 at equal sampler and steps."""
OUTSIDE_UNET = 0.03
FAST_OVER_PAPER = 10.0


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Writes bench.json, bench.md and bench.png into `out`."""
    (out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "bench.md").write_text("\n".join(markdown(results, "bench.png")) + "\n")
    plot.speeds(out / "bench.png", results)


def insert(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replaces what stands in a page between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        ValueError: The page has no such place.
    """
    text = page.read_text()
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"{page} needs one line {start.strip()!r} and, below it, one line {end.strip()!r}")
    before, _, rest = text.partition(start)
    page.write_text(before + start + "\n".join(["", *lines, "", ""]) + end + rest.partition(end)[2])


def markdown(results: Mapping[str, Any], picture: str) -> list[str]:
    """All tables, as lines."""
    machine = results["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['instructions'])}), "
        f"{machine['memory_gib']:.0f} GiB; PyTorch {machine['torch']} with {machine['threads']} threads.",
        "",
        f"![Speed of all ways of sampling]({picture})",
        "",
        *targets(results),
    ]
    for size in results["sizes"]:
        lines += ["", *size_table(size)]
    if "presets" in results:
        lines += ["", *presets_table(results["presets"]), "", *triton_table(results["triton"])]
    if results["not_here"]:
        lines += ["", "Not measured here:", ""]
        lines += [f"- {name}: {reason}" for name, reason in results["not_here"].items()]
    return lines


def targets(results: Mapping[str, Any]) -> list[str]:
    """What was asked for, and what the best engine of each precision gives."""
    rows = []
    for size in results["sizes"]:
        ours = [row for row in size["rows"] if row["ours"]]
        for precision, least in TARGETS.items():
            if best := max((r for r in ours if r["precision"] == precision), key=lambda r: r["speed"], default=None):
                asked = f"{size['size']}: {precision} >= {least:g}x eager PyTorch fp32"
                rows.append([asked, f"{best['speed']:.2f}x, {best['name']}", _verdict(best["speed"] >= least)])
        if ours and size["images"] == 8:
            worst = max(ours, key=lambda row: row["outside_unet"])
            asked = f"{size['size']}: outside the U-Net <= {OUTSIDE_UNET:.0%} of a step at batch {size['images']}"
            found = f"{worst['outside_unet']:.1%}, {worst['name']}"
            rows.append([asked, found, _verdict(worst["outside_unet"] <= OUTSIDE_UNET)])
    for entry in results.get("presets", []):
        if seconds := entry.get("seconds_per_image"):
            speed = seconds["paper"] / seconds["fast"]
            asked = f"{entry['engine']}: `fast` >= {FAST_OVER_PAPER:g}x the images/s of `paper`"
            rows.append([asked, f"{speed:.0f}x", _verdict(speed >= FAST_OVER_PAPER)])
    return table(["asked for", "measured", ""], rows) if rows else []


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def size_table(size: Mapping[str, Any]) -> list[str]:
    """All contenders of one network."""
    peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in size["peaks_gflops"].items())
    lines = [
        f"### {size['size']}: {size['parameters'] / 1e6:.1f} M parameters",
        "",
        f"{size['gflop_per_evaluation']:.1f} GFLOP per evaluation of a row. {size['images']} guided images together "
        f"({2 * size['images']} rows), ddpm, {size['steps']} step{'s' if size['steps'] > 1 else ''}. "
        f"Peak of a matrix product, GFLOP/s: {peaks}. "
        f"diffusers' network has {size['diffusers_parameters'] / 1e6:.1f} M parameters.",
        "",
    ]
    header = ["way", "speed", "ms per step", "images/s at 250 steps", "GFLOP/s", "of peak", "outside U-Net"]
    header += ["peak memory, GiB", "PSNR to eager, dB"]
    rows = [
        [
            f"**{row['name']}**" if row["ours"] else row["name"],
            f"{row['speed']:.2f}x ({row['speed_range'][0]:.2f} .. {row['speed_range'][1]:.2f})",
            f"{row['ms_per_step']:.0f} ± {row['spread']:.0%}",
            f"{row['images_per_s_250_steps']:.3g}",
            f"{row['gflops']:.0f}",
            f"{row['of_peak']:.0%}" if "of_peak" in row else "",
            f"{row['outside_unet_ms_per_step']:.1f} ms, {row['outside_unet']:.1%}",
            f"{row['peak_rss_gib']:.2f}",
            f"{row['psnr_db']:.0f}" if "psnr_db" in row else "",
        ]
        for row in size["rows"]
    ]
    lines += table(header, rows)
    if size["left_out"]:
        lines += ["", *(f"- {name}: not measured: {reason}" for name, reason in size["left_out"].items())]
    return lines


def presets_table(presets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seconds per 256 px image by engine and preset."""
    lines = ["### Presets by engine", "", "Seconds per 256 px image, both stages, in process.", ""]
    measured = [entry for entry in presets if "seconds_per_image" in entry]
    names = list(measured[0]["seconds_per_image"])[::-1] if measured else []
    rows = [
        [
            entry["engine"],
            *(f"{entry['seconds_per_image'][name]:.2f}" for name in names),
            f"{entry['seconds_per_image']['paper'] / entry['seconds_per_image']['fast']:.0f}x",
            f"{entry['peak_rss_gib']:.2f}",
        ]
        for entry in measured
    ]
    lines += table(["engine", *(f"`{name}`" for name in names), "`fast` : `paper`", "peak memory, GiB"], rows)
    failed = [entry for entry in presets if "failed" in entry]
    return lines + [f"- {entry['engine']}: not measured: {entry['failed']}" for entry in failed]


def triton_table(triton: Mapping[str, Any]) -> list[str]:
    """The same engines in process and through the server."""
    lines = [
        "### Through Triton",
        "",
        f"The deployed engines, both stages, {triton['images']} images of {triton['steps']} steps in each stage, "
        "taking turns.",
        "",
    ]
    rows = [
        [
            row["name"],
            f"{row['seconds']:.2f} ± {row['spread']:.0%}",
            f"{triton['images'] / row['seconds']:.2f}",
            f"{row['memory_gib']:.2f}",
        ]
        for row in triton["rows"]
    ]
    lines += table(["way", "s", "images/s", "memory, GiB"], rows)
    return lines + [f"- {name}: not measured: {reason}" for name, reason in triton["left_out"].items()]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
