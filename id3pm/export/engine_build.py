"""Builds one engine: graph, precision, plan, proof of parity, installation."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from id3pm.engines.base import Engine, load_engine
from id3pm.engines.manifest import Manifest, OnnxNodes, Parity, engine_sha256, write_manifest
from id3pm.engines.onnxruntime_engine import OnnxRuntimeEngine
from id3pm.engines.torch_engine import TorchEngine, TorchPrecision
from id3pm.errors import EngineError, ParityError
from id3pm.export import engine_folder, targets
from id3pm.export.engine_folder import ConversionJob, EngineSpec
from id3pm.export.parity import compare as parity
from id3pm.export.parity import report as parity_report
from id3pm.export.parity.identity import face_stage
from id3pm.export.parity.thresholds import thresholds
from id3pm.export.progress import BuildProgress
from id3pm.export.tensorrt import build_plan as to_tensorrt
from id3pm.formats.bundle import Bundle, read_bundle, weights_file


class EngineBuild:
    """The build of one stage's engine.

    Args:
        console: Shows phases and tables.
        bundle: Folder of the bundle.
        repository: The Triton model repository; its face models compare the identity of images.
        spec: The engine.
    """

    def __init__(self, console: Console, bundle: Path, repository: Path, spec: EngineSpec) -> None:
        self._console = console
        self._bundle = bundle
        self._repository = repository
        self._spec = spec
        self._target = targets.TARGETS[spec.target]
        self._model = engine_folder.MODELS[spec.stage]
        how = f"{spec.precision}{' compiled' if spec.compiled else ''}"
        self._name = f"{self._model} ({spec.target} {how}, max batch {spec.max_batch})"
        self._limits = dataclasses.asdict(thresholds(spec.target, spec.precision, spec.buckets))
        self._progress = BuildProgress(console)

    def require_verifiable(self, *, force: bool, allow_unverified: bool) -> None:
        """Refuses an engine that has to be built and cannot be verified here; builds and writes nothing.

        Args:
            force: See `run`.
            allow_unverified: See `run`.

        Raises:
            EngineError: This machine cannot run the engine, and that is not allowed.
        """
        unverifiable = targets.why_not_executable(self._spec.target, self._spec.device)
        if unverifiable is None or allow_unverified or (self._why_stale(allow_unverified) is None and not force):
            return
        raise EngineError(
            f"{self._name} cannot be verified on this machine: {unverifiable}. Build it where it will run, "
            "or pass --allow-unverified to install it without proof of parity"
        )

    def run(self, *, force: bool, allow_unverified: bool) -> None:
        """Builds, verifies and installs the engine, unless the one in place fits.

        Args:
            force: Build even what is up to date.
            allow_unverified: Install an engine that this machine cannot run, without proof of parity.

        Raises:
            ParityError: The engine is not equal to the reference; the one in place was kept.
            Id3pmError: The bundle is damaged, a library is missing, or the engine cannot be built or verified here.
        """
        spec, folder = self._spec, engine_folder.engine_folder(self._repository, self._spec.stage)
        reason = self._why_stale(allow_unverified)
        if reason is None and not force:
            self._say(f"{self._name}: up to date")
            return
        self.require_verifiable(force=force, allow_unverified=allow_unverified)
        unverifiable = targets.why_not_executable(spec.target, spec.device)
        if spec.target == "tensorrt":
            to_tensorrt.require_gpu(spec.device)
        self._say(f"{self._name}: building ({reason or '--force'})")
        with engine_folder.staging_folder(folder) as staging, self._progress.running():
            write_manifest(staging, self._built(staging, unverifiable))
            engine_folder.install(staging, folder)
        if unverifiable is not None:
            self._say(f"[yellow]{self._name}: installed WITHOUT proof of parity: {unverifiable}[/yellow]")
        self._say(f"{self._name}: installed")

    def _why_stale(self, allow_unverified: bool) -> str | None:
        """Why the engine in place does not fit; `None` if it does."""
        folder = engine_folder.engine_folder(self._repository, self._spec.stage)
        return engine_folder.why_stale(folder, self._spec, self._limits, allow_unverified=allow_unverified)

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _built(self, staging: Path, unverifiable: str | None) -> Manifest:
        """Builds the engine into `staging`; its manifest, with parity as far as this machine can measure it."""
        manifest = self._weights(staging) if self._spec.target == "torch-cuda" else self._graph(staging)
        if unverifiable is not None:
            graph = self._graph_parity(staging, manifest)
            not_executed = dataclasses.replace(manifest.parity, trajectory={"not_executed": unverifiable}, graph=graph)
            manifest = dataclasses.replace(manifest, parity=not_executed)
        if self._spec.target == "tensorrt":
            manifest = self._plan(staging, manifest)
        return manifest if unverifiable is not None else self._verified(staging, manifest)

    def _graph(self, staging: Path) -> Manifest:
        """Writes the graph into `staging`; its manifest as if it were the engine, without parity."""
        from id3pm.export.unet import onnx_export as to_onnx  # with onnx, which torch-cuda does not need

        spec, bundle, graph = self._spec, read_bundle(self._bundle), staging / "model.onnx"
        winograd = spec.target == "onnx-cpu" and spec.precision == "fp32"
        exported = to_onnx.export_onnx(self._bundle, spec.stage, graph, self._progress, winograd=winograd)
        converter = self._target.precisions[spec.precision].converter
        notes: dict[str, Any] = {}
        if converter is not None:
            job = ConversionJob(graph=graph, bundle=self._bundle, repository=self._repository, spec=spec)
            notes = importlib.import_module(f"id3pm.export.{converter}").convert(job, self._progress)
        onnx = OnnxNodes(nodes_before=exported.nodes_before, nodes_after=exported.nodes_after)
        return self._manifest(bundle, graph, opset=exported.opset, onnx=onnx, conversion=notes)

    def _weights(self, staging: Path) -> Manifest:
        """Copies the stage's weights into `staging`: PyTorch runs the network itself. As `_graph`."""
        bundle, file = read_bundle(self._bundle), staging / self._target.file
        shutil.copyfile(self._bundle / weights_file(self._spec.stage), file)
        manifest = self._manifest(bundle, file, opset=None, onnx=None)
        if manifest.file_sha256 != manifest.bundle.weights_sha256:
            raise EngineError(f"{weights_file(self._spec.stage)} changed while it was copied; build again")
        return manifest

    def _manifest(self, bundle: Bundle, file: Path, **rest: Any) -> Manifest:
        base = self._spec.stage == "base"
        return engine_folder.built_manifest(
            self._spec,
            file=file.name,
            file_sha256=engine_sha256(file),
            unet=bundle.base if base else bundle.sr,
            diffusion=bundle.base_diffusion if base else bundle.sr_diffusion,
            sampling=bundle.sampling if base else bundle.sr_sampling,
            id_vector_model=bundle.id_vector_model,
            attribute_set=bundle.attribute_set,
            l2_normalised=bundle.l2_normalised,
            parity=Parity(forward=[], trajectory={}, thresholds=self._limits),
            built_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **rest,
        )

    def _plan(self, staging: Path, manifest: Manifest) -> Manifest:
        """Replaces the graph in `staging` by the TensorRT plan built from it; the manifest of the plan."""
        self._progress(f"building the TensorRT plan for {manifest.device}")
        graph, plan = staging / manifest.file, staging / self._target.file
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

    def _graph_parity(self, staging: Path, manifest: Manifest) -> dict[str, Any]:
        """The parity of the graph in `staging`, evaluated on this CPU as its precision computes (`Parity.graph`).

        Raises:
            ParityError: A threshold is missed; the table has been printed.
        """
        self._progress("loading graph and reference")
        # Whether bits depend on the batch is a question to the engine, not to the evaluator of its graph.
        limits = {**self._limits, "batch_invariant": False}
        manifest = dataclasses.replace(
            manifest, parity=dataclasses.replace(manifest.parity, thresholds=limits), buckets="exact"
        )
        if manifest.target == "torch-cuda":
            precision = cast(TorchPrecision, manifest.precision)
            network = TorchEngine(self._bundle, manifest.stage, manifest.max_batch, precision=precision)
            measured = self._measured(network, manifest)
            return {
                "evaluated_by": network.description,
                "forward": measured.forward,
                "trajectory": measured.trajectory,
            }
        from id3pm.export.unet import emulate_half

        with tempfile.TemporaryDirectory(dir=staging) as folder:
            graph, evaluator = emulate_half.evaluable(staging / manifest.file, Path(folder), manifest.precision)
            engine = OnnxRuntimeEngine(graph, manifest)
            engine.description = f"the {manifest.precision} graph ({evaluator})"
            measured = self._measured(engine, manifest)
        return {"evaluated_by": evaluator, "forward": measured.forward, "trajectory": measured.trajectory}

    def _verified(self, staging: Path, manifest: Manifest) -> Manifest:
        """The manifest with its parity, measured through the loader that the server uses.

        Raises:
            ParityError: A threshold is missed; the table has been printed.
        """
        self._progress("loading engine and reference")
        write_manifest(staging, manifest)
        engine = load_engine(staging, device=self._target.device)
        return dataclasses.replace(manifest, parity=self._measured(engine, manifest))

    def _measured(self, engine: Engine, manifest: Manifest) -> Parity:
        """Compares an engine with the reference, prints the table, and closes both.

        Raises:
            ParityError: A threshold is missed.
        """
        reference = TorchEngine(self._bundle, manifest.stage, max_batch=manifest.max_batch)
        faces = face_stage(self._repository, manifest.id_vector_model)
        measured = parity.compare(reference, engine, manifest, self._progress, faces)
        self._progress.end()
        engine.close()
        reference.close()
        title = f"{self._model}: {engine.description} against {reference.description}"
        self._console.print(parity_report.table(title, measured))
        if missed := parity_report.misses(measured):
            raise ParityError(
                f"{self._model} is not equal to the PyTorch model: {'; '.join(missed)}. "
                "It was not installed; an engine that was there before was left as it was"
            )
        return measured
