"""Arithmetic, no measurement: what a data set of the paper's networks needs by class of GPU.

    python benchmarks/dataset_sizing.py

Operations of one evaluation are counted on the networks of `id3pm.config` (two for each multiplication of convolutions
and matrix products, by torch on meta tensors: nothing is computed). An image needs two evaluations for each guided step
of the 64 px stage and one for each step of super-resolution. A GPU's speed is its published dense FP16 tensor rate
times a utilisation that is assumed.
"""

from __future__ import annotations

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from id3pm.config import PAPER_BASE_64, PAPER_SR_256, UNetConfig
from id3pm.engines.inputs import input_shapes
from id3pm.sampling.presets import PRESETS
from id3pm.unet.model import UNet

GPUS = {"L4": 121, "RTX 4090": 165, "A100": 312, "H100 SXM, H200": 989}
"""Dense FP16 with FP32 sums, tera-operations a second, of the makers' data sheets."""
SIZES = (10**6, 10**8)
PNG_KB = 90


def operations(config: UNetConfig) -> float:
    """Of one evaluation of a network for one image, in units of 10^9."""
    with torch.device("meta"):
        unet = UNet(config).eval()
        inputs = {name: torch.empty(shape) for name, shape in input_shapes(config, 1).items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(**inputs)
    return counter.get_total_flops() / 1e9


@click.command()
@click.option(
    "--utilisation", type=click.FloatRange(0, 1, min_open=True), default=0.3, help="Share of the published rate."
)
@click.option("--rejected", type=click.FloatRange(0, 0.99), default=0.1, help="Share of images made in vain.")
def main(utilisation: float, rejected: float) -> None:
    """Prints a Markdown table."""
    base, sr = operations(PAPER_BASE_64), operations(PAPER_SR_256)
    click.echo(
        f"64 px network {base:.0f}, super-resolution {sr:.0f} x 10^9 operations for one evaluation of one image.\n"
    )
    click.echo(
        "| preset | 10^12 operations for an image | GPU | images/s | 1 M images, GPU hours | 100 M images, GPU days |"
    )
    click.echo("|---|---|---|---|---|---|")
    for name, preset in PRESETS.items():
        needed = (2 * preset.base.steps * base + preset.sr.steps * sr) / 1e3
        for gpu, rate in GPUS.items():
            speed = rate * utilisation / needed
            hours = SIZES[0] / (1 - rejected) / speed / 3600
            days = SIZES[1] / (1 - rejected) / speed / 86400
            click.echo(f"| {name} | {needed:.0f} | {gpu} | {speed:.2g} | {hours:,.0f} | {days:,.0f} |")
    terabytes = [size * PNG_KB / 1e9 for size in SIZES]
    click.echo(f"\nPNG of about {PNG_KB} KB: 1 M images are {terabytes[0]:.2f} TB, 100 M {terabytes[1]:.0f} TB.")


if __name__ == "__main__":
    main()
