"""Both stages in a real Triton server, and request-level batching in another, where there is a `tritonserver`."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from gpu_parts.both_stages import Engines
from gpu_parts.stage_models import manifest_of
from gpu_parts.stages import Stage
from id3pm.engines.inputs import OUTPUT_NAME, input_shapes
from id3pm.engines.manifest import Manifest, engine_sha256, write_manifest
from id3pm.export.engine_folder import MODELS, engine_folder
from id3pm.export.repository import write_repository
from id3pm.formats.bundle import Stage as StageName

SERVED = (*MODELS.values(), "id3pm")
"""The models that are needed: no face models, and no ensemble with them."""


def write_models(folder: Path, engines: Engines, precision: str, small: bool) -> Path:
    """A model repository with the networks of these engines: PyTorch on a GPU, onnxruntime on the CPU."""
    repository = folder / "repository"
    stages: dict[StageName, Stage] = {"base": engines.base, "sr": engines.sr}
    write_repository(repository, {name: stage.config.image_size for name, stage in stages.items()})
    for model in repository.iterdir():
        if model.name not in SERVED:
            shutil.rmtree(model)
    for name, engine in (("base", engines.base_engine), ("sr", engines.sr_engine)):
        place = engine_folder(repository, name)
        place.mkdir(parents=True)
        manifest = manifest_of(stages[name], engine, precision)
        manifest = (_graph if small else _weights)(stages[name], place, manifest)
        write_manifest(place, manifest)
    return repository


def _graph(stage: Stage, place: Path, manifest: Manifest) -> Manifest:
    """A plain export: `id3pm build` takes longer over one than all else does."""
    file, inputs = place / "model.onnx", {n: torch.zeros(shape) for n, shape in input_shapes(stage.config, 2).items()}
    names = [*inputs, OUTPUT_NAME]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            stage.weights(stage.config),
            (),
            file,
            kwargs=inputs,
            input_names=names[:-1],
            output_names=names[-1:],
            dynamic_axes={name: {0: "rows"} for name in names},
            opset_version=18,
            dynamo=False,
        )
    found = {"file": file.name, "file_sha256": engine_sha256(file)}
    return dataclasses.replace(manifest, target="onnx-cpu", device="cpu", **found)


def _weights(stage: Stage, place: Path, manifest: Manifest) -> Manifest:
    file = place / manifest.file
    save_file({name: tensor.contiguous() for name, tensor in stage.weights(stage.config).state_dict().items()}, file)
    return dataclasses.replace(manifest, file_sha256=engine_sha256(file))


@contextlib.contextmanager
def step_server(repository: Path) -> Iterator[str]:
    """The address of a Triton server with the stages of a repository."""
    from load.plain_triton import PlainTriton

    with PlainTriton(repository) as server:
        yield server.grpc_url


@contextlib.contextmanager
def batch_server(folder: Path, repository: Path, engines: Engines, device: str) -> Iterator[str]:
    """The address of a Triton server with request-level batching on the engines of a repository."""
    from load import baseline
    from load.plain_triton import PlainTriton

    sizes = (engines.base.config.image_size, engines.sr.config.image_size)
    built = baseline.build(folder / "baseline", repository, max_batch=engines.images, device=device, sizes=sizes)
    with PlainTriton(built) as server:
        yield server.grpc_url


@contextlib.contextmanager
def client_of(url: str) -> Iterator[Any]:
    """A client of a server."""
    from id3pm_client import Client

    with Client(url) as client:
        yield client


def timed(generate: Callable[[int], object], count: int, rounds: int = 3) -> tuple[list[float], float]:
    """Images a second of every round of so many at once, and the seconds of a lone image."""

    def seconds(images: int) -> float:
        start = time.perf_counter()
        generate(images)
        return time.perf_counter() - start

    seconds(1)
    rates = [count / seconds(count) for _ in range(rounds)]
    return rates, statistics.median(seconds(1) for _ in range(rounds))
