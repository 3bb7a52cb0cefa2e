"""Builds a bundle's engines into a Triton model repository, each proven equal to the PyTorch model before it is used.

    id3pm build --bundle PATH                                                       # for this machine's CPU
    id3pm build --bundle bundles/demo_attributes --repository build/attributes      # beside the first

`python export/build_engines.py` is the same in a checkout.

For the 64 px and the super-resolution stage: PyTorch -> fp32 ONNX -> the requested precision (-> TensorRT), then the
parity gate (`id3pm.export.parity`), then <repository>/<model>/1/engine/{model.onnx or model.plan, manifest.json}. If a
stage misses a threshold, the program prints the table, keeps the old engine and exits with code 1. The face models
come first, because they compare the identity of the images. Engines that are up to date are not rebuilt.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import tempfile
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from id3pm.command_options import FOLDER, option, takes
from id3pm.config import UNetConfig
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.manifest import Manifest, OnnxNodes, Parity, Target, engine_sha256, write_manifest
from id3pm.engines.onnxruntime_engine import OnnxRuntimeEngine
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import EngineError, Id3pmError, ParityError
from id3pm.export import engine_folder, targets
from id3pm.export.engine_folder import ConversionJob, EngineSpec
from id3pm.export.face.build import build_face_models, vectors_of
from id3pm.export.parity import compare as parity
from id3pm.export.parity import report as parity_report
from id3pm.export.parity.identity import face_stage
from id3pm.export.parity.thresholds import thresholds
from id3pm.export.progress import Progress
from id3pm.export.repository import write_repository
from id3pm.export.tensorrt import build_plan as to_tensorrt
from id3pm.export.unet import emulate_half as rounded
from id3pm.export.unet import onnx_export as to_onnx
from id3pm.formats.bundle import STAGES, Bundle, Stage, read_bundle
from id3pm.installation import checkout


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of `id3pm build`."""

    bundle_path: Path | None = option(
        "--bundle",
        type=click.Path(path_type=Path),
        help="Folder of the bundle.  [default in a checkout: its bundles/demo]",
    )
    target_name: str = option(
        "--target",
        type=click.Choice([targets.CPU, *get_args(Target)]),
        default=targets.CPU,
        show_default=True,
        help="cpu: onnxruntime for fp32, OpenVINO for bf16 and int8.",
    )
    precision: str = option(type=click.Choice(targets.PRECISIONS), default="fp32", show_default=True)
    gpu: str | None = option(help="GPU to build for: sm86, sm89, sm120, ... or current; with --target tensorrt.")
    max_batch: int = option(
        type=click.IntRange(1, 1024), default=16, show_default=True, help="Most rows of one engine call."
    )
    repository: Path = option(
        type=FOLDER,
        default=Path("triton_repo"),
        show_default=True,
        help="Triton model repository; its configurations are written if they are missing.",
    )
    stage: str = option(type=click.Choice([*STAGES, "face", "all"]), default="all", show_default=True)
    face_model: str | None = option(help="As id3pm build-faces takes it; the bundle's ID-vector model if not given.")
    force: bool = option(is_flag=True, help="Build even what is up to date.")
    allow_unverified: bool = option(
        is_flag=True,
        help="Install an engine that this machine cannot run, without any proof of parity. Its manifest says so.",
    )


@click.command("build", help=__doc__.split("\n\n")[0] if __doc__ else None)
@takes(BuildOptions)
def main(options: BuildOptions) -> None:
    """Command line; see the module's text."""
    console = Console(highlight=False)
    bundle_path, repository, stage = options.bundle_path or default_bundle(), options.repository, options.stage
    target = targets.runtime(options.target_name, options.precision)
    try:
        device = targets.require_available(target, options.precision, options.gpu)
        bundle = read_bundle(bundle_path)
        sizes = {"base": bundle.base.image_size, "sr": bundle.sr.image_size}
        for file in write_repository(repository, sizes):
            console.print(f"{file}: was edited, kept as it is; delete it to get this version's", soft_wrap=True)
        if stage in ("face", "all"):  # first: they compare the images of the other engines
            ensure_face_models(console, repository, bundle, options.face_model)
        for name in STAGES:
            if stage in (name, "all"):
                spec = EngineSpec(
                    stage=name,
                    target=target,
                    precision=options.precision,
                    max_batch=options.max_batch,
                    device=device,
                    bundle=engine_folder.bundle_reference(bundle_path, bundle, name),
                    versions=engine_folder.versions(target, options.precision),
                )
                ensure_engine(
                    console,
                    bundle_path,
                    repository,
                    spec,
                    force=options.force,
                    allow_unverified=options.allow_unverified,
                )
    except OSError as error:
        raise click.ClickException(f"{error.strerror}: {error.filename}") from error
    except Id3pmError as error:
        raise click.ClickException(str(error)) from error


def default_bundle() -> Path:
    """The demo bundle of the checkout.

    Raises:
        click.UsageError: This is no checkout.
    """
    root = checkout()
    if root is None:
        raise click.UsageError(
            "--bundle is missing: the folder of a bundle, as id3pm convert or export-bundle writes it; the demo bundle "
            "is in the checkout alone, not in the wheel"
        )
    return root / "bundles" / "demo"


def ensure_engine(
    console: Console, bundle_path: Path, repository: Path, spec: EngineSpec, *, force: bool, allow_unverified: bool
) -> None:
    """Builds, verifies and installs one stage's engine, unless the one in place fits `spec`.

    Raises:
        ParityError: The engine is not equal to the reference; the one in place was kept.
        Id3pmError: The bundle is damaged, a library is missing, or the engine cannot be built or verified here.
    """
    folder = engine_folder.engine_folder(repository, spec.stage)
    name = f"{engine_folder.MODELS[spec.stage]} ({spec.target} {spec.precision}, max batch {spec.max_batch})"
    limits = dataclasses.asdict(thresholds(spec.target, spec.precision))
    reason = engine_folder.why_stale(folder, spec, limits, allow_unverified=allow_unverified)
    if reason is None and not force:
        console.print(f"{name}: up to date", soft_wrap=True)
        return
    unverifiable = targets.why_not_executable(spec.target, spec.device)
    if unverifiable is not None and not allow_unverified:
        raise EngineError(
            f"{name} cannot be verified on this machine: {unverifiable}. Build it where it will run, "
            "or pass --allow-unverified to install it without proof of parity"
        )
    if spec.target == "tensorrt":
        to_tensorrt.require_gpu(spec.device)
    console.print(f"{name}: building ({reason or '--force'})", soft_wrap=True)
    progress = Progress(console)
    with engine_folder.staging_folder(folder) as staging, progress.running():
        manifest = build(bundle_path, repository, staging, spec, limits, progress)
        if unverifiable is not None:
            graph = verify_graph(console, bundle_path, repository, staging, manifest, progress)
            not_executed = dataclasses.replace(manifest.parity, trajectory={"not_executed": unverifiable}, graph=graph)
            manifest = dataclasses.replace(manifest, parity=not_executed)
        if spec.target == "tensorrt":
            manifest = to_plan(staging, manifest, progress)
        if unverifiable is None:
            manifest = verify(console, bundle_path, repository, staging, manifest, progress)
        write_manifest(staging, manifest)
        engine_folder.install(staging, folder)
    if unverifiable is not None:
        console.print(f"[yellow]{name}: installed WITHOUT proof of parity: {unverifiable}[/yellow]", soft_wrap=True)
    console.print(f"{name}: installed", soft_wrap=True)


def build(
    bundle_path: Path, repository: Path, staging: Path, spec: EngineSpec, limits: dict[str, Any], progress: Progress
) -> Manifest:
    """Writes the graph into `staging`; returns its manifest as if it were the engine, without parity."""
    bundle = read_bundle(bundle_path)
    graph = staging / "model.onnx"
    winograd = spec.target == "onnx-cpu" and spec.precision == "fp32"
    exported = to_onnx.export_onnx(bundle_path, spec.stage, graph, progress, winograd=winograd)
    converter = targets.TARGETS[spec.target].precisions[spec.precision].converter
    notes: dict[str, Any] = {}
    if converter is not None:
        job = ConversionJob(graph=graph, bundle=bundle_path, repository=repository, spec=spec)
        notes = importlib.import_module(f"id3pm.export.{converter}").convert(job, progress)
    return engine_folder.built_manifest(
        spec,
        file=graph.name,
        file_sha256=engine_sha256(graph),
        unet=_unet(bundle, spec.stage),
        diffusion=bundle.base_diffusion if spec.stage == "base" else bundle.sr_diffusion,
        sampling=bundle.sampling if spec.stage == "base" else bundle.sr_sampling,
        id_vector_model=bundle.id_vector_model,
        attribute_set=bundle.attribute_set,
        l2_normalised=bundle.l2_normalised,
        opset=exported.opset,
        onnx=OnnxNodes(nodes_before=exported.nodes_before, nodes_after=exported.nodes_after),
        conversion=notes,
        parity=Parity(forward=[], trajectory={}, thresholds=limits),
        built_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def to_plan(staging: Path, manifest: Manifest, progress: Progress) -> Manifest:
    """Replaces the graph in `staging` by the TensorRT plan built from it; returns the manifest of the plan."""
    progress(f"building the TensorRT plan for {manifest.device}")
    graph, plan = staging / manifest.file, staging / targets.TARGETS[manifest.target].file
    cache = to_tensorrt.timing_cache(staging.parent, manifest.device)
    layers = to_tensorrt.build_plan(graph, plan, manifest, cache)
    for part in staging.glob(graph.name + "*"):
        part.unlink()
    return dataclasses.replace(
        manifest,
        file=plan.name,
        file_sha256=engine_sha256(plan),
        conversion={**manifest.conversion, "layers": layers},
    )


def verify_graph(
    console: Console, bundle_path: Path, repository: Path, staging: Path, manifest: Manifest, progress: Progress
) -> dict[str, Any]:
    """The parity of the graph in `staging`, evaluated on this CPU as its precision computes (`Parity.graph`).

    Raises:
        ParityError: A threshold is missed; the table has been printed.
    """
    progress("loading graph and reference")
    with tempfile.TemporaryDirectory(dir=staging) as folder:
        graph, evaluator = rounded.evaluable(staging / manifest.file, Path(folder), manifest.precision)
        engine = OnnxRuntimeEngine(graph, manifest)
        engine.description = f"the {manifest.precision} graph ({evaluator})"
        measured = measure(console, bundle_path, repository, engine, manifest, progress)
    return {"evaluated_by": evaluator, "forward": measured.forward, "trajectory": measured.trajectory}


def verify(
    console: Console, bundle_path: Path, repository: Path, staging: Path, manifest: Manifest, progress: Progress
) -> Manifest:
    """The manifest with its parity, measured through the loader that the server uses.

    Raises:
        ParityError: A threshold is missed; the table has been printed.
    """
    progress("loading engine and reference")
    write_manifest(staging, manifest)
    engine = load_engine(staging, device=targets.TARGETS[manifest.target].device)
    return dataclasses.replace(manifest, parity=measure(console, bundle_path, repository, engine, manifest, progress))


def measure(
    console: Console, bundle_path: Path, repository: Path, engine: Engine, manifest: Manifest, progress: Progress
) -> Parity:
    """Compares an engine with the reference, prints the table, and closes both.

    Raises:
        ParityError: A threshold is missed.
    """
    reference = TorchEngine(bundle_path, manifest.stage, max_batch=manifest.max_batch)
    measured = parity.compare(reference, engine, manifest, progress, face_stage(repository, manifest.id_vector_model))
    progress.end()
    engine.close()
    reference.close()
    model = engine_folder.MODELS[manifest.stage]
    console.print(parity_report.table(f"{model}: {engine.description} against {reference.description}", measured))
    if missed := parity_report.misses(measured):
        raise ParityError(
            f"{model} is not equal to the PyTorch model: {'; '.join(missed)}. "
            "It was not installed; an engine that was there before was left as it was"
        )
    return measured


def ensure_face_models(console: Console, repository: Path, bundle: Bundle, face_model: str | None) -> None:
    """Builds the face models of the bundle's ID-vector model, unless they are up to date.

    Raises:
        EngineError: `face_model` gives other ID vectors than the bundle takes.
    """
    model = face_model or bundle.id_vector_model
    if vectors_of(model) != bundle.id_vector_model:
        raise EngineError(
            f"--face-model {model} gives {vectors_of(model)} ID vectors, the bundle takes {bundle.id_vector_model}"
        )
    _, built = build_face_models(repository, model)
    console.print(f"face_embedding ({bundle.id_vector_model}): {'built' if built else 'up to date'}", soft_wrap=True)


def _unet(bundle: Bundle, stage: Stage) -> UNetConfig:
    return bundle.base if stage == "base" else bundle.sr


if __name__ == "__main__":
    main()
