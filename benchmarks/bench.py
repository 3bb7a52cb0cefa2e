"""`make bench`: who samples faster? One run, one machine, side by side; every contender in a process of its own.

    python benchmarks/bench.py                    # the demo bundle, an 18 M-parameter network, presets, Triton
    python benchmarks/bench.py --full-size        # and the paper's base network: one step, 10 GB of memory
    python benchmarks/bench.py --quick            # a network of no use, to see that it runs

All sample the same number of guided images with the same number of ancestral steps, taking turns; the table shows
medians and half the range. Writes bench.json, bench.md and bench.png.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console

import contenders
import networks
import report
from id3pm.bundle import read_bundle
from id3pm.config import PAPER_BASE_64, UNetConfig
from workers import Worker, interleaved, median_and_spread

ROOT = Path(__file__).resolve().parents[1]
console = Console(highlight=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """One network to measure; `config` is `None` where the bundle exists already."""

    name: str
    config: UNetConfig | None
    images: int
    steps: int
    repeats: int
    compiled: bool = True


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--bundle", type=click.Path(path_type=Path), default=ROOT / "bundles" / "demo")
@click.option("--repository", type=click.Path(path_type=Path), default=ROOT / "triton_repo", help="Its built engines.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--precisions", default="fp32,bf16,int8", show_default=True, help="Which of our engines to build.")
@click.option("--full-size", is_flag=True, help="Measure the paper's base network too (295 M parameters).")
@click.option("--quick", is_flag=True, help="Only a tiny network; seconds.")
def main(bundle: Path, repository: Path, out: Path, precisions: str, full_size: bool, quick: bool) -> None:
    """Command line; see the module's text."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = [Size(name="tiny", config=networks.TINY_16, images=2, steps=3, repeats=2, compiled=False)]
    if not quick:
        sizes = [
            Size(name=read_bundle(bundle).name, config=None, images=8, steps=4, repeats=5),
            Size(name="18m", config=networks.SMALL_64, images=8, steps=2, repeats=3),
        ]
    if full_size:
        sizes.append(Size(name="full", config=PAPER_BASE_64, images=2, steps=1, repeats=2, compiled=False))
    results: dict[str, Any] = {"machine": machine(), "sizes": []}
    for size in sizes:
        folder = bundle if size.config is None else random_bundle(out, size)
        results["sizes"].append(measure(size, folder, out, precisions.split(",")))
    if not quick:
        results |= cascade(repository)
    report.write(out, results)
    console.print((out / "bench.md").read_text(), markup=False, soft_wrap=True)


def machine() -> dict[str, Any]:
    """What it ran on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    field = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_bf16") if flag in field.get("flags", "").split()]
    return {
        "cpu": field.get("model name", platform.processor()),
        "instructions": flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def random_bundle(out: Path, size: Size) -> Path:
    """The bundle of a network with random weights."""
    assert size.config is not None
    folder = out / "bundles" / size.name
    if not (folder / "bundle.json").exists():
        networks.write_random_bundle(folder, size.name, size.config)
    return folder


def build(bundle: Path, repository: Path, precision: str, rows: int) -> str | None:
    """Builds and verifies the 64 px engine; `None`, or why there is none."""
    command = [sys.executable, str(ROOT / "export" / "build_engines.py"), "--bundle", str(bundle), "--stage", "base"]
    command += ["--repository", str(repository), "--precision", precision, "--max-batch", str(rows)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900
    )
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip().splitlines()[-1]


def measure(size: Size, bundle: Path, out: Path, precisions: list[str]) -> dict[str, Any]:
    """All contenders of one size, taking turns."""
    config = read_bundle(bundle).base
    console.print(f"{size.name}: building engines and starting contenders ...")
    common: dict[str, Any] = {"images": size.images, "steps": size.steps}
    workers = {"matmul": Worker(contenders.Matmul, {})}
    workers["PyTorch eager"] = Worker(contenders.Reference, {"bundle": str(bundle), **common})
    if size.compiled:
        workers["torch.compile"] = Worker(contenders.Reference, {"bundle": str(bundle), "compiled": True, **common})
    workers["diffusers UNet2DModel"] = Worker(contenders.Diffusers, {"bundle": str(bundle), **common})
    refused = {}
    for precision in precisions:
        repository = out / "engines" / f"{size.name}-{precision}"
        if (why := build(bundle, repository, precision, 2 * size.images)) is not None:
            refused[precision] = why
            continue
        engine = repository / "denoiser_64" / "1" / "engine"
        workers[f"ours {precision}"] = Worker(contenders.Ours, {"engine": str(engine), **common})
    for worker in workers.values():
        worker.result()
    console.print(f"{size.name}: {size.images} images, {size.steps} steps, {size.repeats} rounds ...")
    try:
        return _measured(size, config, workers, refused)
    finally:
        for worker in workers.values():
            worker.close()


def _measured(size: Size, config: UNetConfig, workers: Mapping[str, Worker], refused: dict[str, str]) -> dict[str, Any]:
    timings = interleaved(workers, size.repeats)
    peak = contenders.Matmul.FLOPS / min(turn.seconds for turn in timings.pop("matmul"))
    reference = workers["PyTorch eager"].turn("images")
    unet_flops = networks.unet_flops(config)
    model = contenders.diffusers_unet(config)
    sample = torch.zeros(1, 3, config.image_size, config.image_size)
    other = networks.module_flops(model, sample=sample, timestep=torch.zeros(1))
    rows = []
    for name, turns in timings.items():
        seconds, spread = median_and_spread([turn.seconds for turn in turns])
        flops = (other if name.startswith("diffusers") else unet_flops) * 2 * size.images * size.steps
        outside, _ = median_and_spread([turn.seconds - turn.unet_seconds for turn in turns])
        row = {
            "name": name,
            "ms_per_step": 1e3 * seconds / size.steps,
            "spread": spread,
            "images_per_s_250_steps": size.images * size.steps / seconds / 250,
            "gflops": flops / seconds / 1e9,
            "of_peak": flops / seconds / peak,
            "outside_unet_ms_per_step": 1e3 * outside / size.steps,
            "outside_unet": outside / seconds,
            "peak_rss_gib": workers[name].peak_rss() / 2**30,
        }
        if name.startswith("ours"):
            row["psnr_db"] = psnr(workers[name].turn("images"), reference)
        rows.append(row)
    eager = rows[0]["ms_per_step"]
    for row in rows:
        row["speed"] = eager / row["ms_per_step"]
    return {
        "size": size.name,
        "parameters": networks.parameters(config),
        "diffusers_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflop_per_evaluation": unet_flops / 1e9,
        "images": size.images,
        "steps": size.steps,
        "repeats": size.repeats,
        "matmul_gflops": peak / 1e9,
        "rows": rows,
        "not_built": refused,
    }


def psnr(actual: Any, expected: Any) -> float:
    """Of images in [-1, 1], in dB, at most 200."""
    squared = float(np.mean((np.clip(actual, -1, 1).astype(np.float64) - np.clip(expected, -1, 1)) ** 2))
    return 200.0 if squared == 0 else min(200.0, 10 * math.log10(4 / squared))


def cascade(repository: Path) -> dict[str, Any]:
    """The deployed engines, both stages: presets in process; and in process beside Triton at eight requests at once."""
    from served import Served

    images, steps, repeats = 8, 5, 3
    worker = Worker(contenders.Cascade, {"repository": str(repository), "images": images, "steps": steps})
    worker.result()
    served = None
    try:
        console.print("presets ...")
        presets = []
        for name, count in (("fast", 4), ("balanced", 2), ("paper", 1)):
            seconds = worker.turn("preset", name=name, images=count)
            presets.append({"preset": name, "images": count, "seconds_per_image": seconds / count})
        console.print("through Triton ...")
        served = Served(repository, images, steps)
        both: Any = {"in process": worker, "through Triton, 8 at once": served}
        rows = []
        for name, turns in interleaved(both, repeats).items():
            seconds, spread = median_and_spread([turn.seconds for turn in turns])
            rows.append(
                {
                    "name": name,
                    "seconds": seconds,
                    "spread": spread,
                    "images_per_s": images / seconds,
                    "rss_gib": both[name].peak_rss() / 2**30,
                }
            )
    finally:
        worker.close()
        if served is not None:
            served.close()
    return {"presets": presets, "cascade": {"images": images, "steps": steps, "rows": rows}}


if __name__ == "__main__":
    main()
