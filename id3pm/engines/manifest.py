"""`manifest.json`: the sources of an engine, its runtime, and the proof that it equals the reference."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from id3pm.attributes import AttributeSet
from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig, from_json, to_json
from id3pm.engines.buckets import Buckets
from id3pm.errors import ConfigError, EngineError, EngineMissingError
from id3pm.formats.bundle import Stage
from id3pm.formats.hashing import file_sha256
from id3pm.formats.source import source_of

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
BUILD_HINT = "run: id3pm build"

Target = Literal["onnx-cpu", "openvino-cpu", "onnx-cuda", "tensorrt", "torch-cuda"]
CPU_TARGETS: frozenset[Target] = frozenset({"onnx-cpu", "openvino-cpu"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleReference:
    """The bundle an engine was built from.

    Attributes:
        name: The bundle's name.
        weights_sha256: Hash of the stage's weights file.
        bundle_json_sha256: Hash of `bundle.json`.
        source: Address that the bundle was pulled from (`id3pm.artifacts.address`), or `None`. The hashes say what was
            built, so two references that differ in it alone are equal.
    """

    name: str
    weights_sha256: str
    bundle_json_sha256: str
    source: str | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxNodes:
    """Size of the ONNX graph before and after simplification."""

    nodes_before: int
    nodes_after: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """Measured differences from the fp32 PyTorch model, and their limits.

    Attributes:
        forward: One entry per timestep and condition that were compared; empty where the engine could not be run.
        trajectory: The comparison over a whole sampling trajectory with the same noise.
        thresholds: The largest differences that the build accepts.
        batch_invariant: Whether a row's result has the same bits in any batch; `None` where that was not measured.
        graph: The same comparisons of the graph that the engine was built from, and the evaluator; empty if the engine
            itself was measured. It proves the graph, not the runtime that executes the engine.
        company: With `fast` buckets, how far a row alone may be from the same row among others: `relative_error` of a
            forward pass, `psnr_db` and `max_levels` (of 255) of final images. Empty where bits must be equal.
    """

    forward: list[dict[str, Any]]
    trajectory: dict[str, Any]
    thresholds: dict[str, Any]
    batch_invariant: bool | None = None
    graph: dict[str, Any] = dataclasses.field(default_factory=dict)
    company: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a server needs to know about an engine; the JSON object of `manifest.json`.

    Attributes:
        schema_version: Version of this format.
        stage: `base` (64 px) or `sr`.
        target: The runtime the engine was built for, one of `Target`.
        precision: Precision of weights and matrix products, such as `fp32`.
        max_batch: Most rows of one engine call.
        file: Name of the engine file in the same folder.
        file_sha256: `engine_sha256` of that file.
        bundle: The bundle that was built.
        unet: Architecture of the stage.
        diffusion: Noising process of the stage.
        sampling: The bundle's default options of the stage.
        id_vector_model: Name of the face-recognition model whose ID vectors the bundle takes.
        attribute_set: Number or name of the attribute set, or `None`.
        opset: ONNX opset of the exported graph; `None` where there is none (`torch-cuda`).
        onnx: Size of the graph, or `None`.
        versions: Name and version of each library used in the build.
        device: What the engine runs on: `cpu`, `cuda`, or the compute capability of a TensorRT engine (`sm86`).
        parity: Proof of equality.
        built_at: UTC time in ISO 8601.
        conversion: Changes to the exported fp32 graph to reach `precision`; empty for `fp32`.
        buckets: How calls are padded: see `id3pm.engines.buckets`. Engines for CPUs pad nothing, which is exact.
        l2_normalised: The bundle's value: see `id3pm.formats.bundle.Bundle`.
        compiled: PyTorch compiles the network when the engine is loaded (`torch.compile`); of `torch-cuda` alone.
        source: Address that the engine was pulled from, or `None`. Not in the file: `source.json` of the model
            repository has it.
    """

    schema_version: int = SCHEMA_VERSION
    stage: Stage
    target: Target
    precision: str
    max_batch: int
    file: str
    file_sha256: str
    bundle: BundleReference
    unet: UNetConfig
    diffusion: DiffusionConfig
    sampling: SamplingOptions
    id_vector_model: str
    attribute_set: AttributeSet | None
    opset: int | None
    onnx: OnnxNodes | None
    versions: dict[str, str]
    device: str
    parity: Parity
    built_at: str
    conversion: dict[str, Any] = dataclasses.field(default_factory=dict)
    buckets: Buckets = "exact"
    l2_normalised: bool | None = None
    compiled: bool = False
    source: str | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ConfigError(f"schema_version={self.schema_version}: this version of id3pm reads {SCHEMA_VERSION}")
        if self.max_batch < 1:
            raise ConfigError(f"max_batch={self.max_batch}: must be at least 1")
        if Path(self.file).name != self.file:
            raise ConfigError(f"file={self.file!r}: must be a plain file name beside the manifest")


def engine_sha256(path: Path) -> str:
    """Hash (hex) of an engine: the bytes of the file, then those of its external weights `<file>.data`, if any."""
    weights = path.with_name(path.name + ".data")
    return file_sha256(path, weights) if weights.exists() else file_sha256(path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` into an engine folder; it appears whole or not at all."""
    partial = folder / (MANIFEST_NAME + ".partial")
    written = {name: value for name, value in to_json(manifest).items() if name != "source"}
    partial.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of an engine folder.

    Raises:
        EngineMissingError: The folder has no manifest.
        EngineError: The manifest is not valid.
    """
    try:
        manifest = from_json(Manifest, json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise EngineMissingError(f"no engine has been built in {folder}; {BUILD_HINT}") from error
    except ValueError as error:  # not UTF-8, not JSON, or not allowed by a configuration
        raise EngineError(f"the engine's manifest is not valid: {error}; {BUILD_HINT}") from error
    return dataclasses.replace(manifest, source=_source(folder.resolve()))


def _source(folder: Path) -> str | None:
    """The address that an engine folder, MODEL/1/engine of a model repository, was pulled from."""
    if len(folder.parents) < 3:
        return None
    repository = folder.parents[2]
    return source_of(repository, (folder / MANIFEST_NAME).relative_to(repository).as_posix())


def engine_file(folder: Path, manifest: Manifest) -> Path:
    """The path of the engine file.

    Raises:
        EngineMissingError: The file is not there.
    """
    path = folder / manifest.file
    if not path.is_file():
        raise EngineMissingError(f"the engine's {manifest.file} is missing; {BUILD_HINT}")
    return path


def verify_engine_file(folder: Path, manifest: Manifest) -> Path:
    """The path of the engine file, after comparing its hash with the manifest (reads the whole file once).

    Raises:
        EngineMissingError: The file is not there.
        EngineError: Its content has another hash.
    """
    path = engine_file(folder, manifest)
    if (found := engine_sha256(path)) != manifest.file_sha256:
        raise EngineError(
            f"{manifest.file} is damaged or from another build: sha256 {found[:12]}..., "
            f"the manifest says {manifest.file_sha256[:12]}...; {BUILD_HINT}"
        )
    return path
