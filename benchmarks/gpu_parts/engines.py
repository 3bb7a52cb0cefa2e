"""The engines that can be built and loaded here, by the build's own parity gate, and what a call of them takes."""

from __future__ import annotations

import io
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console

from gpu_parts.equality import in_companies
from gpu_parts.report import Report
from gpu_parts.stages import BUNDLE
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.buckets import Buckets
from id3pm.engines.inputs import input_shapes
from id3pm.engines.manifest import Manifest, Target, read_manifest
from id3pm.errors import Id3pmError
from id3pm.export import engine_folder, targets
from id3pm.export.engine_build import EngineBuild
from id3pm.formats.bundle import Stage, read_bundle
from networks import TINY_16, write_random_bundle

Way = tuple[Target, Buckets, bool]
"""Target, buckets, and whether PyTorch compiles the network."""
_TARGETS: tuple[Target, ...] = ("torch-cuda", "tensorrt", "onnx-cuda")
WAYS: list[Way] = [(target, kind, False) for target in _TARGETS for kind in get_args(Buckets)]
SMALL_WAYS: list[Way] = [*WAYS[:2], ("onnx-cpu", "exact", False)]
COMPILED: Way = ("torch-cuda", "exact", True)
"""Last: it takes longest. `fast` would compile eight times."""


def engines(report: Report) -> None:
    """Each stage, target and kind of buckets, and PyTorch's compiler: built, proven, loaded, timed; or why not."""
    add = report.table()
    max_batch, precision = (2, "fp32") if report.small else (16, "fp16")
    with tempfile.TemporaryDirectory() as folder:
        bundle = BUNDLE
        if report.small:
            bundle = Path(folder) / "bundle"
            write_random_bundle(bundle, "toy", TINY_16)
        stages: tuple[Stage, ...] = ("base",) if report.small else ("base", "sr")
        ways = SMALL_WAYS if report.small else WAYS
        for stage, way in [*itertools.product(stages, ways), *((stage, COMPILED) for stage in stages)]:
            target, kind, _ = way
            device = targets.TARGETS[target].device if report.small else report.device
            line = {"stage": stage, "target": target + " compiled" * way[2], "buckets": kind}
            start = time.perf_counter()
            try:
                place = Path(folder) / "-".join(map(str, way))
                manifest, engine = _built(bundle, place, stage, way, precision, max_batch, device)
            except (Id3pmError, ImportError, RuntimeError) as error:
                add(**line, result=str(error)[:300])
                continue
            proof = {"result": "ok", "build_s": time.perf_counter() - start, **_proof(manifest)}
            add(**line, **proof, **_calls(report, engine), **in_companies(engine))
            engine.close()


def _built(
    bundle: Path,
    repository: Path,
    stage: Stage,
    way: Way,
    precision: str,
    max_batch: int,
    device: str,
) -> tuple[Manifest, Engine]:
    """An engine, proven and loaded.

    Raises:
        Id3pmError: It cannot be built, proven or loaded here.
        ImportError: Its libraries are not installed.
    """
    target, buckets, compiled = way
    gpu = "current" if target == "tensorrt" else None
    spec = engine_folder.EngineSpec(
        stage=stage,
        target=target,
        precision=precision,
        max_batch=max_batch,
        buckets=buckets,
        compiled=compiled,
        device=targets.require_available(target, precision, gpu, buckets, compiled),
        bundle=engine_folder.bundle_reference(bundle, read_bundle(bundle), stage),
        versions=engine_folder.versions(target, precision),
    )
    EngineBuild(Console(file=io.StringIO()), bundle, repository, spec).run(force=True, allow_unverified=False)
    place = engine_folder.engine_folder(repository, stage)
    return read_manifest(place), load_engine(place, device=device)


def _proof(manifest: Manifest) -> dict[str, Any]:
    parity = manifest.parity
    return {
        "forward_error": max(row["relative_error"] for row in parity.forward),
        "images_psnr_db": parity.trajectory["psnr_db"],
        "equal_bits": parity.batch_invariant,
        "company_psnr_db": parity.company.get("psnr_db", ""),
        "company_levels": parity.company.get("max_levels", ""),
    }


def _calls(report: Report, engine: Engine) -> dict[str, float]:
    """Milliseconds of a call of one row and of the most, inputs on the device already."""
    found = {}
    for rows in (1, engine.max_batch):
        arrays = engine.arrays
        arrays.use()
        zeros = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(engine.config, rows).items()}
        there = {name: arrays.from_host(array) for name, array in zeros.items()}

        def call(there: Any = there, arrays: Any = arrays) -> None:
            arrays.to_host(engine.run(there)[:1, :1, :1, :1])()  # one number: waits for the device

        found[f"ms_{'one' if rows == 1 else 'most'}"] = 1e3 * report.seconds(call, most_s=0.5)
    return found
