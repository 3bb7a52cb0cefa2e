"""The measurements of `make bench`: networks, contenders, ratios."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import deployed
import networks
import ours
import peers
import report
from builds import Build, ensure, known_builds
from id3pm.config import PAPER_BASE_64, UNetConfig
from id3pm.formats.bundle import read_bundle
from machine import machine
from measured import Entry, Measured

EAGER = "PyTorch eager fp32"
PICTURE = "benchmarks.png"
console = Console(highlight=False, stderr=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """One network to measure.

    Attributes:
        name: As the tables call it.
        config: `None` where the bundle exists already.
        images: Sampled together.
        steps: Of a loop.
        seconds: Of measuring, for all contenders together.
        rounds: Fewest and most.
        at_once: Contenders that are in memory beside the reference; `None` for all.
        compiled: Measure torch.compile, whose first turn takes minutes for large networks.
        one_per_precision: Of our engines build only the fastest of every precision, as the size before has measured.
    """

    name: str
    config: UNetConfig | None
    images: int
    steps: int
    seconds: float = 40.0
    rounds: tuple[int, int] = (3, 9)
    at_once: int | None = None
    compiled: bool = True
    one_per_precision: bool = False


TINY = Size(name="tiny", config=networks.TINY_16, images=2, steps=3, seconds=1.0, rounds=(2, 2), compiled=False)
SMALL = Size(name="18m", config=networks.SMALL_64, images=8, steps=2, seconds=60.0)
FULL = Size(
    name="full",
    config=PAPER_BASE_64,
    images=2,
    steps=1,
    seconds=60.0,
    rounds=(2, 3),
    at_once=1,
    compiled=False,
    one_per_precision=True,
)


def run(
    bundle: Path,
    repository: Path,
    out: Path,
    wanted: Sequence[str] | None,
    *,
    full_size: bool,
    quick: bool,
    docs: Path | None,
) -> None:
    """Measures everything, writes the results after every part.

    Args:
        bundle: The demo bundle.
        repository: The deployed engines.
        out: Folder of the results, of engines and bundles.
        wanted: Names of our engines, `None` for all.
        full_size: Measure the paper's base network too.
        quick: Measure a tiny network and nothing else.
        docs: Page to put the tables into.

    Raises:
        click.BadParameter: There is no such engine.
        RuntimeError: The reference itself failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    builds, not_here = known_builds(wanted)
    demo = Size(name=read_bundle(bundle).name, config=None, images=8, steps=4)
    sizes = [TINY] if quick else [demo, SMALL, *([FULL] if full_size else [])]
    results: dict[str, Any] = {
        "machine": machine() | {"torch": torch.__version__, "threads": torch.get_num_threads()},
        "not_here": not_here,
        "sizes": [],
    }
    for size in sizes:
        here = fastest_of_each_precision(builds, results["sizes"]) if size.one_per_precision else builds
        folder = bundle if size.config is None else random_bundle(out, size)
        results["sizes"].append(measure(size, folder, out, here))
        report.write(out, results)
    if not quick:
        engines = {build.name: out / "engines" / f"{demo.name}-{build.name}" for build in builds}
        results |= deployed.measure(repository, engines, console)
        report.write(out, results)
    if docs is not None:
        report.insert(docs, "bench", report.markdown(results, PICTURE))
        shutil.copyfile(out / "bench.png", docs.parent / PICTURE)
    Console(highlight=False).print((out / "bench.md").read_text(), markup=False, soft_wrap=True)


def random_bundle(out: Path, size: Size) -> Path:
    """The bundle of a network with random weights."""
    assert size.config is not None
    folder = out / "bundles" / size.name
    if not (folder / "bundle.json").exists():
        networks.write_random_bundle(folder, size.name, size.config)
    return folder


def fastest_of_each_precision(builds: Sequence[Build], sizes: Sequence[Mapping[str, Any]]) -> list[Build]:
    """One engine per precision: the fastest that the last size measured, else the first."""
    speeds = {row["name"]: row["speed"] for row in sizes[-1]["rows"]} if sizes else {}
    best: dict[str, Build] = {}
    for build in sorted(builds, key=lambda build: -speeds.get(row_name(build), 0.0)):
        best.setdefault(build.precision, build)
    return [build for build in builds if best[build.precision] == build]


def row_name(build: Build) -> str:
    """Our engine's name in the tables."""
    return f"ours {build.target} {build.precision}"


def measure(size: Size, bundle: Path, out: Path, builds: Sequence[Build]) -> dict[str, Any]:
    """All contenders of one size, taking turns.

    Raises:
        RuntimeError: The reference failed.
    """
    config = read_bundle(bundle).base
    task: dict[str, Any] = {"images": size.images, "steps": size.steps}
    with torch.device("meta"):  # for its size and operations
        diffusers = peers.diffusers_unet(config)
    entries = peer_entries(config, diffusers, {"bundle": str(bundle), **task}, size.compiled)
    left_out = {}
    for build in builds:
        repository = out / "engines" / f"{size.name}-{build.name}"
        console.print(f"{size.name}: {build.name}: building, unless up to date ...")
        stage = "base" if size.config is not None else "all"
        if (why := ensure(build, bundle, repository, stage, 2 * size.images)) is not None:
            left_out[row_name(build)] = why
            continue
        arguments = {"engine": str(repository / "denoiser_64" / "1" / "engine"), **task}
        flops = networks.unet_flops(config)
        entries.append(Entry(row_name(build), ours.Ours, arguments, build.precision, flops, is_ours=True))
    first, *others = entries
    groups = math.ceil(len(others) / (size.at_once or len(others)))
    measured = Measured()
    for number in range(groups):
        group = [first, *others[number::groups]]
        console.print(f"{size.name}: {size.images} images, {size.steps} steps: {', '.join(e.name for e in group)} ...")
        measured.add(group, size.seconds / groups, size.rounds)
    return {
        "size": size.name,
        "parameters": networks.parameters(config),
        "diffusers_parameters": sum(parameter.numel() for parameter in diffusers.parameters()),
        "gflop_per_evaluation": networks.unet_flops(config) / 1e9,
        **task,
        "peaks_gflops": {precision: peak / 1e9 for precision, peak in measured.peaks.items()},
        "rows": measured.rows(entries, **task),
        "left_out": left_out | measured.failed,
    }


def peer_entries(config: UNetConfig, diffusers: Any, arguments: dict[str, Any], compiled: bool) -> list[Entry]:
    """The peers, the reference first."""
    flops = networks.unet_flops(config)
    sample = torch.zeros(1, 3, config.image_size, config.image_size, device="meta")
    others = networks.module_flops(diffusers, sample=sample, timestep=torch.zeros(1, device="meta"))
    entries = [Entry(EAGER, peers.Reference, arguments, "fp32", flops)]
    if compiled:
        entries.append(Entry("torch.compile fp32", peers.Reference, {**arguments, "compiled": True}, "fp32", flops))
    bf16 = {**arguments, "autocast": True}
    entries.append(Entry("PyTorch autocast bf16", peers.Reference, bf16, "bf16", flops))
    entries.append(Entry("diffusers UNet2DModel fp32", peers.Diffusers, arguments, "fp32", others))
    return entries
