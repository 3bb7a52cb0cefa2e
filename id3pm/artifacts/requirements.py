"""What an engine set needs of a machine: runtime with its version, and GPU. Read from the engines' own manifests."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from id3pm.engines.manifest import BundleReference, Manifest, engine_file, read_manifest
from id3pm.errors import TransferError
from id3pm.export.targets import TARGETS, why_not_executable
from id3pm.face.manifest import FILE_NAME as FACE_MANIFEST
from id3pm.face.manifest import FaceManifest
from id3pm.face.manifest import read_manifest as read_face_manifest

STAGE_MODELS = {"denoiser_64": "base", "super_resolution": "sr"}
FACE_MODEL = "face_embedding"
# Distributions of a module that does not come from the one of its name alone.
_DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}
_KEYS = {"target", "device", "runtime", "version"}


def engine_folder(repository: Path, model: str) -> Path:
    """The folder of a model's engine in a model repository."""
    return repository / model / "1" / "engine"


def stage_manifests(repository: Path) -> dict[str, Manifest]:
    """The manifests of both stages, by model.

    Raises:
        TransferError: An engine is of another stage than its model, or the two are of different bundles.
        EngineError: A manifest is missing or not valid.
    """
    manifests = {model: read_manifest(engine_folder(repository, model)) for model in STAGE_MODELS}
    for model, manifest in manifests.items():
        if manifest.stage != STAGE_MODELS[model]:
            raise TransferError(f"{model} holds an engine of stage {manifest.stage}")
    first, second = (manifest.bundle for manifest in manifests.values())
    if first.bundle_json_sha256 != second.bundle_json_sha256:
        raise TransferError(f"the engines are of different bundles, {first.name} and {second.name}")
    return manifests


def engine_files(repository: Path) -> list[str]:
    """The files of all engines of a model repository as their manifests name them, by path with `/`.

    Raises:
        TransferError: See `stage_manifests`.
        EngineError: A manifest or a file is missing.
    """
    found = []
    for model, manifest in stage_manifests(repository).items():
        folder = engine_folder(repository, model)
        file = engine_file(folder, manifest)
        weights = file.with_name(f"{file.name}.data")
        found += [folder / FACE_MANIFEST, file, *([weights] if weights.exists() else [])]
    folder = engine_folder(repository, FACE_MODEL)
    face: FaceManifest = read_face_manifest(folder)
    found += [folder / name for name in (FACE_MANIFEST, *face.detector_files, face.encoder_file)]
    return sorted({file.relative_to(repository).as_posix() for file in found})


def requirements(repository: Path) -> dict[str, dict[str, str]]:
    """What each stage's engine needs: `target`, `device`, `runtime` and its `version`.

    Raises:
        TransferError: A manifest does not name the version of its runtime.
    """
    return {model: _requirement(model, manifest) for model, manifest in stage_manifests(repository).items()}


def _requirement(model: str, manifest: Manifest) -> dict[str, str]:
    for runtime in TARGETS[manifest.target].runtimes:
        if runtime in manifest.versions:
            return {
                "target": manifest.target,
                "device": manifest.device,
                "runtime": runtime,
                "version": manifest.versions[runtime],
            }
    raise TransferError(f"{model}: its manifest names no version of {' or '.join(TARGETS[manifest.target].runtimes)}")


def check_machine(about: Mapping[str, Any]) -> None:
    """Refuses engines that were built for another GPU or another version of their runtime than this machine's.

    Args:
        about: `Contents.about` of an engine set.

    Raises:
        TransferError: This machine differs, or the tags are not those of engines.
    """
    if set(about) != set(STAGE_MODELS):
        raise TransferError(f"the engines have no tags for exactly {' and '.join(STAGE_MODELS)}")
    for model, tags in about.items():
        if not isinstance(tags, dict) or set(tags) != _KEYS or tags["target"] not in TARGETS:
            raise TransferError(f"{model}: its tags must be {', '.join(sorted(_KEYS))}")
        if tags["runtime"] not in TARGETS[tags["target"]].runtimes:
            raise TransferError(f"{model}: {tags['target']} does not run on {str(tags['runtime'])[:80]!r}")
        runtime, version = tags["runtime"], str(tags["version"])[:80]
        here = installed_version(runtime)
        if here != version:
            found = "not installed" if here is None else f"{here} on this machine"
            raise TransferError(
                f"{model} was built for {runtime} {version}, which is {found}: install that version, "
                "pull engines built for this one, or run: id3pm build"
            )
        if (reason := why_not_executable(tags["target"], str(tags["device"])[:80])) is not None:
            raise TransferError(f"{model} was built for {tags['target']} on {tags['device']}: {reason}")


def installed_version(module: str) -> str | None:
    """The installed version of the distribution that has a module; `None` without one."""
    for distribution in _DISTRIBUTIONS.get(module, (module,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


def bundle_of(repository: Path) -> BundleReference:
    """The bundle that the engines of a model repository were built from."""
    return stage_manifests(repository)["denoiser_64"].bundle
