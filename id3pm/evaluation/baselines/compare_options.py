"""The options of the methods, and those of `id3pm baseline compare`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import click

from id3pm.command_options import EXISTING_FILE, FOLDER, option
from id3pm.evaluation.baselines.weights import FOLDER as WEIGHTS
from id3pm.evaluation.options import DataOptions, PairModelOptions, PresetOptions

MethodName = Literal["gaussian", "gan", "nbnet", "vec2face"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of Gaussian sampling and GAN search."""

    queries: int = option(
        type=click.IntRange(1), default=1600, help="Budget per image; published: 240000 (Gaussian), 6400 (GAN)."
    )
    authors_code: bool = option(is_flag=True, help="Follow the searches' published code where it leaves their papers.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankOptions:
    """The options of GAN search."""

    bank: int = option(type=click.IntRange(1), default=500, help="Images of the GAN's bank; published: 160000.")
    generator: Path | None = option(
        type=EXISTING_FILE, help="StyleGAN2 for GAN search: .onnx (z -> picture) or .pt state dict; else the 64 px GAN."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """The options of NbNet and Vec2Face."""

    weights: Path = option(
        type=FOLDER, default=WEIGHTS, help="Has nbnet.safetensors, vec2face.safetensors (id3pm baseline train)."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(DataOptions, PairModelOptions, PresetOptions, SearchOptions, BankOptions, WeightsOptions):
    """The options of `id3pm baseline compare`."""

    methods: tuple[MethodName, ...] = option(
        "--method",
        type=click.Choice(METHODS),
        multiple=True,
        help="Repeatable; else all, networks where there are weights.",
    )
    data: Path = option(
        type=FOLDER, default=Path("data/demo"), help="Data set whose held-out people are the first set of targets."
    )
    photographs: Path | None = option(
        type=FOLDER, help="The second set of targets; else portraits that the package carries."
    )
    count: int = option(type=click.IntRange(1), default=4, help="Targets of each set.")
    many: int = option(
        type=click.IntRange(1),
        default=200,
        help="Held-out people for the methods that ask no queries; --count or more.",
    )
    seeds: int = option(type=click.IntRange(1), default=4, help="Images of each target by ID3PM.")
    search_seeds: int = option(
        type=click.IntRange(1),
        default=2,
        help="Images of each target by Gaussian sampling and by GAN search; diversity needs 2.",
    )
    interpolation: int = option(
        type=click.IntRange(0),
        default=5,
        help="Images from one person to the next; below 2 there are no interpolations.",
    )
    pairs: int = option(type=click.IntRange(1), default=1, help="Interpolations in each set.")
    inception: Path | None = option(
        type=EXISTING_FILE, help="weights-inception-2015-12-05-6726825d.pth, for FID; else EfficientNet-Lite0."
    )
    lpips_backbone: Path | None = option(
        type=EXISTING_FILE, help="alexnet-owt-7be5be79.pth, for LPIPS in the diversity table."
    )
    out: Path = option(type=FOLDER, default=Path("out/baselines"), help="Folder of the report.")
