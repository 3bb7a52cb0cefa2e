"""Rows batched in one call or evaluated one by one: the cost of a row on a CPU.

Counted is the CPU time of one thread, which other programs on the machine hardly change; the ways take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import openvino
from numpy.typing import NDArray

import report
from id3pm.config import UNetConfig
from id3pm.engines.inputs import OUTPUT_NAME, input_shapes
from id3pm.engines.manifest import read_manifest
from id3pm.engines.onnxruntime_engine import import_onnxruntime, open_session, session_options

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"64 px": "denoiser_64", "256 px": "super_resolution"}
Arrays = dict[str, NDArray[Any]]


def onnxruntime_ways(file: Path, config: UNetConfig, inputs: Arrays, rows: int) -> dict[str, Callable[[], Any]]:
    """fp32: one session takes any number of rows."""
    ort = import_onnxruntime()
    options = session_options(ort)
    options.intra_op_num_threads = 1
    session = open_session(ort, file, config, options, "CPUExecutionProvider", {})

    def call(part: slice) -> Any:
        return session.run([OUTPUT_NAME], {name: array[part] for name, array in inputs.items()})

    return {
        "onnxruntime fp32, together": lambda: call(slice(None)),
        "onnxruntime fp32, one by one": lambda: [call(slice(row, row + 1)) for row in range(rows)],
    }


def openvino_ways(file: Path, inputs: Arrays, rows: int) -> dict[str, Callable[[], Any]]:
    """bf16: compiled for any number of rows, for this number, and for one."""
    core = openvino.Core()
    precision = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}

    def compiled(size: int | None) -> Any:
        model = core.read_model(file)
        if size is not None:
            model.reshape({name: [size, *array.shape[1:]] for name, array in inputs.items()})
        return core.compile_model(model, "CPU", precision).create_infer_request()

    free, fixed, one = compiled(None), compiled(rows), compiled(1)
    singles = [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(rows)]
    return {
        "OpenVINO bf16, together, any number": lambda: free.infer(inputs),
        "OpenVINO bf16, together, fixed number": lambda: fixed.infer(inputs),
        "OpenVINO bf16, one by one": lambda: [one.infer(single) for single in singles],
    }


def measure(folder: Path, rows: int, repeats: int) -> dict[str, float]:
    """Milliseconds of CPU time per row, by way."""
    manifest = read_manifest(folder)
    shapes = input_shapes(manifest.unet, rows)
    random = np.random.Generator(np.random.Philox(0))
    inputs: Arrays = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    file = folder / manifest.file
    ways = onnxruntime_ways(file, manifest.unet, inputs, rows) | openvino_ways(file, inputs, rows)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, call in ways.items():
            start = time.process_time()
            call()
            if turn:  # the first warms up
                times[way].append(1e3 * (time.process_time() - start) / rows)
    return {way: statistics.median(values) for way, values in times.items()}


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "triton_repo")
@click.option("--rows", type=click.IntRange(2), default=16, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--docs", type=click.Path(path_type=Path, dir_okay=False), help="Page to put the table into as well.")
def main(repository: Path, rows: int, repeats: int, docs: Path | None) -> None:
    """Command line; see the module's text."""
    found = {stage: measure(repository / model / "1" / "engine", rows, repeats) for stage, model in STAGES.items()}
    ways = next(iter(found.values()))
    body = [[way, *(f"{times[way]:.1f}" for times in found.values())] for way in ways]
    lines = [f"{rows} rows.", "", *report.table(["ms of CPU time per row", *found], body)]
    if docs is not None:
        report.insert(docs, "rows", lines)
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
