"""Builds a bundle's engines into a Triton model repository, each proven equal to the PyTorch model before it is used.

    id3pm build --bundle PATH                                                       # for this machine's CPU
    id3pm build --bundle bundles/demo_attributes --repository build/attributes      # beside the first

`python export/build_engines.py` is the same in a checkout.

For the 64 px and the super-resolution stage: PyTorch -> fp32 ONNX -> the requested precision (-> TensorRT), then the
parity gate (`id3pm.export.parity`), then <repository>/<model>/1/engine: manifest.json and model.onnx, model.plan or
model.safetensors. If a stage misses a threshold, the program prints the table, keeps the old engine and exits with
code 1. The face models come first, because they compare the identity of the images. Engines that are up to date are
not rebuilt.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from id3pm.command_options import BUNDLE, FOLDER, option, takes
from id3pm.engines.buckets import Buckets
from id3pm.engines.manifest import Target
from id3pm.errors import EngineError, Id3pmError
from id3pm.export import engine_folder, targets
from id3pm.export.engine_build import EngineBuild
from id3pm.export.engine_folder import EngineSpec
from id3pm.export.face.build import build_face_models, vectors_of
from id3pm.export.repository import write_repository
from id3pm.formats.bundle import STAGES, Bundle, read_bundle
from id3pm.installation import checkout


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of `id3pm build`."""

    bundle_path: Path | None = option(
        "--bundle",
        type=BUNDLE,
        help="Folder or address of the bundle.  [default in a checkout: its bundles/demo]",
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
    max_batch: int | None = option(
        type=click.IntRange(1, 1024),
        help="Most rows of one engine call.  [default: 16; on a GPU those of 8 images, which is 16 with guidance and 8 "
        "without, as in super-resolution]",
    )
    buckets: Buckets = option(
        type=click.Choice(get_args(Buckets)),
        default="exact",
        show_default=True,
        help="On a GPU. exact: every call is padded to --max-batch rows, and a row's bits never depend on the others. "
        "fast: a call runs the smallest batch size that holds it; bits may differ, by what the build measures.",
    )
    compile: bool = option(
        is_flag=True,
        help="With --target torch-cuda: torch.compile, when the engine is loaded. Needs a C compiler there, and tens "
        "of seconds for each batch size.",
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
    bundle_path, repository = options.bundle_path or default_bundle(), options.repository
    target = targets.runtime(options.target_name, options.precision)
    try:
        device = targets.require_available(target, options.precision, options.gpu, options.buckets, options.compile)
        bundle = read_bundle(bundle_path)
        builds = _engine_builds(console, options, bundle_path, bundle, target, device)
        for build in builds:  # before anything is built or written
            build.require_verifiable(force=options.force, allow_unverified=options.allow_unverified)
        sizes = {"base": bundle.base.image_size, "sr": bundle.sr.image_size}
        for file in write_repository(repository, sizes):
            console.print(f"{file}: was edited, kept as it is; delete it to get this version's", soft_wrap=True)
        if options.stage in ("face", "all"):  # first: they compare the images of the other engines
            ensure_face_models(console, repository, bundle, options.face_model)
        for build in builds:
            build.run(force=options.force, allow_unverified=options.allow_unverified)
    except OSError as error:
        raise click.ClickException(f"{error.strerror}: {error.filename}") from error
    except Id3pmError as error:
        raise click.ClickException(str(error)) from error


def _engine_builds(
    console: Console, options: BuildOptions, bundle_path: Path, bundle: Bundle, target: Target, device: str
) -> list[EngineBuild]:
    """The builds of the stages that are asked for."""
    unets = {"base": bundle.base, "sr": bundle.sr}
    specs = [
        EngineSpec(
            stage=stage,
            target=target,
            precision=options.precision,
            max_batch=options.max_batch or targets.default_max_batch(target, unets[stage]),
            buckets=options.buckets,
            compiled=options.compile,
            device=device,
            bundle=engine_folder.bundle_reference(bundle_path, bundle, stage),
            versions=engine_folder.versions(target, options.precision),
        )
        for stage in STAGES
        if options.stage in (stage, "all")
    ]
    return [EngineBuild(console, bundle_path, options.repository, spec) for spec in specs]


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


if __name__ == "__main__":
    main()
