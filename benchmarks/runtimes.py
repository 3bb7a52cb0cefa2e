"""Runtimes and precisions for the 64 px U-Net on this CPU: speed and error (docs/cpu.md).

python benchmarks/runtimes.py                            # the demo bundle
python benchmarks/runtimes.py --network 18m              # 18 million random weights; or full, the paper's 295 million

Counted is the CPU time of one thread, which other programs on the machine hardly change; the runtimes take turns, and
the table shows the median and the fastest turn. Eager PyTorch evaluates each half of the batch by itself, as guidance
does without us. Loading (wall time) and memory are measured when an engine is loaded, before anything has run.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))

import networks
import report
from id3pm.config import PAPER_BASE_64
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs
from id3pm.engines.manifest import Manifest, Target
from id3pm.engines.onnxruntime_engine import OnnxRuntimeEngine
from id3pm.engines.openvino_engine import OpenVINOEngine
from id3pm.engines.torch_engine import TorchEngine
from id3pm.export import build as build_engines
from id3pm.export import engine_folder
from id3pm.export.parity.inputs import forward_rows
from id3pm.export.parity.trajectory import run_rows
from id3pm.export.progress import Progress
from id3pm.formats.bundle import read_bundle

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {"18m": networks.SMALL_64, "full": PAPER_BASE_64}
BUILDS: Mapping[str, tuple[Target, str]] = {
    "Winograd": ("onnx-cpu", "fp32"),
    "plain": ("openvino-cpu", "bf16"),
    "int8": ("openvino-cpu", "int8"),
}
"""Graphs, by what is peculiar to them: what must be built to get them."""
RUNTIMES: Mapping[str, tuple[str, Any, str]] = {
    "onnxruntime fp32": ("plain", OnnxRuntimeEngine, "fp32"),
    "onnxruntime fp32, Winograd": ("Winograd", OnnxRuntimeEngine, "fp32"),
    "onnxruntime int8": ("int8", OnnxRuntimeEngine, "int8"),
    "OpenVINO fp32": ("plain", OpenVINOEngine, "fp32"),
    "OpenVINO bf16": ("plain", OpenVINOEngine, "bf16"),
    "OpenVINO int8": ("int8", OpenVINOEngine, "int8"),
}
"""What is measured: graph, runtime, precision."""
console = Console(highlight=False)


@click.command()
@click.option("--network", type=click.Choice(["demo", *NETWORKS]), default="demo", show_default=True)
@click.option("--rows", default="4,16", show_default=True, help="Even batch sizes.")
@click.option("--repeats", default=7, show_default=True)
@click.option("--skip", multiple=True, help="Graphs not to build: Winograd, int8.")
def main(network: str, rows: str, repeats: int, skip: tuple[str, ...]) -> None:
    """Command line; see the module's text."""
    torch.set_num_threads(1)
    sizes = [int(size) for size in rows.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = ROOT / "bundles" / "demo"
        if network != "demo":
            bundle = folder / "bundle"
            networks.write_random_bundle(bundle, network, NETWORKS[network])
        graphs = {graph: build(bundle, folder / graph, graph, max(sizes)) for graph in BUILDS if graph not in skip}
        reference = TorchEngine(bundle, "base", max_batch=max(sizes))
        engines: dict[str, Engine] = {"PyTorch eager": reference}
        loading = {"PyTorch eager": "-"}
        for label, (graph, runtime, precision) in RUNTIMES.items():
            if graph in graphs:
                path, manifest = graphs[graph]
                engines[label], loading[label] = load(runtime, path, dataclasses.replace(manifest, precision=precision))
        inputs = inputs_of(bundle, reference, max(sizes))
        lines = [f"{network}: {networks.parameters(reference.config) / 1e6:.1f} M parameters", ""]
        lines += table(engines, loading, inputs, sizes, repeats)
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def build(bundle: Path, folder: Path, graph: str, max_batch: int) -> tuple[Path, Manifest]:
    """Exports (and calibrates) a graph, without verifying it."""
    folder.mkdir()
    target, precision = BUILDS[graph]
    spec = engine_folder.EngineSpec(
        stage="base",
        target=target,
        precision=precision,
        max_batch=max_batch,
        device="cpu",
        bundle=engine_folder.bundle_reference(bundle, read_bundle(bundle), "base"),
        versions=engine_folder.versions(target, precision),
    )
    progress = Progress(console)
    with progress.running():
        manifest = build_engines.build(bundle, folder / "no-faces", folder, spec, {}, progress)
    return folder / manifest.file, manifest


def load(runtime: Any, path: Path, manifest: Manifest) -> tuple[Engine, str]:
    """An engine, and how long it took and how much memory it holds, in words."""
    before, start = resident_bytes(), time.perf_counter()
    engine: Engine = runtime(path, manifest, threads=1)
    return engine, f"{time.perf_counter() - start:.1f} s, {(resident_bytes() - before) / 2**20:.0f} MiB"


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def inputs_of(bundle: Path, reference: Engine, rows: int) -> EngineInputs:
    """The gate's rows, from clean to noise, with and without condition, over and over."""
    some = [row for _, row in forward_rows(reference.config, read_bundle(bundle).base_diffusion)]
    chosen = [some[number % len(some)] for number in range(rows)]
    return {name: np.stack([row[name] for row in chosen]).astype(np.float32) for name in chosen[0]}


def table(
    engines: Mapping[str, Engine], loading: Mapping[str, str], inputs: EngineInputs, sizes: list[int], repeats: int
) -> list[str]:
    """Milliseconds per row and speed against eager PyTorch at every size, error, equality of rows, loading."""
    cells: dict[str, list[str]] = {label: [] for label in engines}
    for size in sizes:
        times = turns(engines, {name: array[:size] for name, array in inputs.items()}, repeats)
        medians = {label: statistics.median(values) for label, values in times.items()}
        for label, values in times.items():
            speed = medians["PyTorch eager"] / medians[label]
            cells[label].append(f"{1e3 * medians[label] / size:.1f} ({1e3 * min(values) / size:.1f}), {speed:.2f}x")
    expected = run_rows(engines["PyTorch eager"], inputs, max(sizes))
    for label, engine in engines.items():
        together = run_rows(engine, inputs, max(sizes))
        equal = all(run_rows(engine, inputs, size).tobytes() == together.tobytes() for size in {1, 3, *sizes})
        cells[label] += [f"{worst(together, expected):.1e}", "yes" if equal else "no", loading[label]]
    header = ["", *[f"{size} rows: ms a row (fastest), speed" for size in sizes]]
    header += ["relative error", "rows equal in any batch", "loading"]
    return report.table(header, [[label, *row] for label, row in cells.items()])


def turns(engines: Mapping[str, Engine], inputs: EngineInputs, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every turn; a first round warms up, unread."""
    rows = len(inputs["x"])
    times: dict[str, list[float]] = {label: [] for label in engines}
    for number in range(repeats + 1):
        for label, engine in engines.items():
            start = time.process_time()
            run_rows(engine, inputs, rows // 2 if isinstance(engine, TorchEngine) else rows)
            if number:
                times[label].append(time.process_time() - start)
    return times


def worst(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest L2 error of a row, relative to its norm."""
    difference = np.linalg.norm((actual - expected).reshape(len(actual), -1), axis=1)
    return float(np.max(difference / np.linalg.norm(expected.reshape(len(expected), -1), axis=1)))


if __name__ == "__main__":
    main()
