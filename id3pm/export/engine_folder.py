"""An engine's folder: whether it is up to date, and its atomic replacement.

This module imports no heavy library, so the check is fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import id3pm
from id3pm.engines.buckets import Buckets
from id3pm.engines.manifest import BundleReference, Manifest, Target, read_manifest, verify_engine_file
from id3pm.errors import EngineError, EngineMissingError, MissingExtraError
from id3pm.export.recipe import recipe_hash
from id3pm.export.targets import TARGETS, tensorrt_module
from id3pm.formats.bundle import CONFIG_FILE, Bundle, Stage, weights_hash
from id3pm.formats.hashing import file_sha256
from id3pm.formats.source import source_of
from id3pm.installation import how_to_install

MODELS: dict[Stage, str] = {"base": "denoiser_64", "sr": "super_resolution"}
"""The Triton model of each stage."""
BUILD_LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxslim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Everything that determines an engine; the fields are those of its `Manifest`.

    Attributes:
        stage: `base` or `sr`.
        target: Runtime.
        precision: Precision of weights and matrix products.
        max_batch: Most rows of one call.
        buckets: How calls are padded.
        compiled: Whether PyTorch compiles the network when the engine is loaded.
        device: `cpu`, `cuda` or a compute capability.
        bundle: Name and hashes of the bundle.
        versions: Versions of libraries and of the recipe (see `recipe.recipe_hash`).
    """

    stage: Stage
    target: Target
    precision: str
    max_batch: int
    buckets: Buckets
    compiled: bool = False
    device: str
    bundle: BundleReference
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionJob:
    """Input of a precision's converter (`targets.Precision.converter`).

    Its module has `convert(job, report) -> dict[str, Any]`: rewrites `graph` (and the external weights beside it) in
    place, keeping names and shapes of inputs and outputs and fp32 at both ends, and returns its description for the
    manifest (`Manifest.conversion`).

    Attributes:
        graph: The exported fp32 graph, `model.onnx` in a folder of its own.
        bundle: Folder of the bundle.
        repository: The Triton model repository, which may have a face engine.
        spec: The engine to build.
    """

    graph: Path
    bundle: Path
    repository: Path
    spec: EngineSpec


def engine_folder(repository: Path, stage: Stage) -> Path:
    """The engine folder of the stage's Triton model."""
    return repository / MODELS[stage] / "1" / "engine"


def bundle_reference(path: Path, bundle: Bundle, stage: Stage) -> BundleReference:
    """Name and hashes of the bundle in a folder.

    Raises:
        BundleError: The weights are missing.
    """
    return BundleReference(
        name=bundle.name,
        weights_sha256=weights_hash(path, stage),
        bundle_json_sha256=file_sha256(path / CONFIG_FILE),
        source=source_of(path, CONFIG_FILE),
    )


def versions(target: Target, precision: str) -> dict[str, str]:
    """Versions of everything used in a build, read from package metadata without importing anything.

    Raises:
        MissingExtraError: A library is not installed.
    """
    modules = ["torch"] if target == "torch-cuda" else list(BUILD_LIBRARIES)
    recipe = [*TARGETS[target].precisions[precision].recipe]
    runtime = tensorrt_module() if target == "tensorrt" else TARGETS[target].runtimes[0]
    if runtime not in modules:
        modules.append(runtime)
    if target == "tensorrt":
        recipe += ["tensorrt/build_plan.py", "tensorrt/check_precision.py"]
    # A module may come from several distributions: onnxruntime or onnxruntime-gpu, tensorrt-rtx-cu12 or -cu13.
    distributions = importlib.metadata.packages_distributions()
    if missing := [module for module in modules if module not in distributions]:
        extras = "export,openvino" if "openvino" in missing else "export"
        raise MissingExtraError(f"not installed: {', '.join(missing)}; run: {how_to_install(extras)}")
    found = {module: importlib.metadata.version(distributions[module][0]) for module in modules}
    return {"id3pm": id3pm.__version__, "recipe": recipe_hash(recipe), **found}


def why_stale(folder: Path, spec: EngineSpec, limits: dict[str, Any], *, allow_unverified: bool) -> str | None:
    """The reason why the engine in a folder does not fit `spec`; `None` if it fits, is intact and verified.

    Args:
        folder: The engine folder.
        spec: The wanted engine.
        limits: The thresholds of its parity gate.
        allow_unverified: Accept an engine without measured parity.
    """
    try:
        manifest = read_manifest(folder)
        verify_engine_file(folder, manifest)
    except EngineMissingError:
        return "no engine yet"
    except EngineError:
        return "the engine in place is damaged or from another version"
    changed = [
        field.name for field in dataclasses.fields(spec) if getattr(manifest, field.name) != getattr(spec, field.name)
    ]
    if changed:
        return f"other {', '.join(changed)}"
    if manifest.parity.thresholds != limits:
        return "other thresholds"
    if not manifest.parity.forward and not allow_unverified:
        return "its parity was not measured"
    return None


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, to build in; it is removed afterwards unless `install` has moved it.

    Raises:
        OSError: The repository cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".engine-", dir=folder.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def install(staging: Path, folder: Path) -> None:
    """Replaces the old engine by a finished one; on failure the old one is restored."""
    staging.chmod(0o755)  # mkdtemp's 0700 would lock out a server that runs as another user
    if not folder.exists():
        staging.rename(folder)
        return
    old = staging.with_name(staging.name + "-old")
    folder.rename(old)
    try:
        staging.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def built_manifest(spec: EngineSpec, **rest: Any) -> Manifest:
    """The manifest of an engine that was built as `spec` says."""
    return Manifest(**{field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}, **rest)
